package dev.notifier.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Set;
import org.junit.jupiter.api.Test;

class RealmFilterTest {
    @Test
    void realmsAreSeparatedByCommas() {
        RealmFilter filter = RealmFilter.parse("shop, staff,");
        assertEquals(Set.of("shop", "staff"), filter.names());
        assertFalse(filter.includes("master"));
    }

    @Test
    void withoutTheSettingAllRealmsAreIncluded() {
        assertTrue(RealmFilter.parse(null).includes("any"));
        assertTrue(RealmFilter.parse(" ").includes("any"));
    }
}
