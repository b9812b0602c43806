package dev.notifier.publisher.event;

/** The exchange that an event goes to: people who have just signed out, or mass logouts, which wait while the former are served. */
public enum Lane {
    EVENTS,
    BULK;

    /** The word in files, in names of files and over HTTP. */
    public String word() {
        return name().toLowerCase(java.util.Locale.ROOT);
    }

    /** The lane of this word, or null. */
    public static Lane of(String word) {
        for (Lane lane : values()) {
            if (lane.word().equals(word)) {
                return lane;
            }
        }
        return null;
    }
}
