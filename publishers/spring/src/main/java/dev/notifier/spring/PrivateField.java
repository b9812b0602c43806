package dev.notifier.spring;

import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.BeansException;
import org.springframework.beans.DirectFieldAccessor;

/** Reads what Spring has without a getter. */
final class PrivateField {
    private static final Logger LOG = LoggerFactory.getLogger(PrivateField.class);

    private PrivateField() {
    }

    /** Returns the field's value; empty if this version does not have the field, which is logged with its consequence. */
    @SuppressWarnings("unchecked")
    static <T> Optional<T> read(Object target, String field, String consequence) {
        try {
            return Optional.ofNullable((T) new DirectFieldAccessor(target).getPropertyValue(field));
        } catch (BeansException unknownVersion) {
            LOG.warn("notifier: {} has no field {} in this version: {}", target.getClass().getName(), field, consequence);
            return Optional.empty();
        }
    }
}
