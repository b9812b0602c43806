package dev.notifier.spring;

/**
 * Names of a client's settings for back-channel logout.
 *
 * <pre>{@code
 * ClientSettings.builder().setting(BackchannelLogoutSettings.URI, "https://shop.example.com/logout/connect/back-channel/idp")
 * }</pre>
 */
public final class BackchannelLogoutSettings {
    /** The address to which logout tokens are posted, a text. A client without one is notified only if notifier's registry has its address. */
    public static final String URI = "notifier.client.backchannel-logout-uri";

    /** Whether the client requires a `sid` in logout tokens, `true` or `false`. */
    public static final String SESSION_REQUIRED = "notifier.client.backchannel-logout-session-required";

    private BackchannelLogoutSettings() {
    }
}
