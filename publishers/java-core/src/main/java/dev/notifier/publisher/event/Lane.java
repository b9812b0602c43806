package dev.notifier.publisher.event;

import java.util.Locale;

/** The priority of an event. Each lane has its own queue and exchange, so that a mass logout does not delay single sign-outs. */
public enum Lane {
    /** Sign-outs of single users. */
    EVENTS,
    /** Mass logouts and expired sessions. */
    BULK;

    /** Returns the name of the lane in files, file names and URLs. */
    public String label() {
        return name().toLowerCase(Locale.ROOT);
    }

    /** Returns the lane with this label, or null. */
    public static Lane fromLabel(String label) {
        for (Lane lane : values()) {
            if (lane.label().equals(label)) {
                return lane;
            }
        }
        return null;
    }
}
