package dev.notifier.keycloak;

import java.util.Arrays;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Collectors;

/**
 * The setting `realms`: the realms whose session ends are published.
 *
 * @param names empty for all realms
 */
record RealmFilter(Set<String> names) {
    /** @param text names separated by commas; may be null */
    static RealmFilter parse(String text) {
        return new RealmFilter(Arrays.stream(text == null ? new String[0] : text.split(",")).map(String::trim).filter(Predicate.not(String::isEmpty))
                .collect(Collectors.toUnmodifiableSet()));
    }

    boolean includes(String realm) {
        return names.isEmpty() || names.contains(realm);
    }
}
