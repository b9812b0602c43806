package dev.notifier.publisher.monitoring;

/** Counts nothing, for a server without Micrometer. */
public final class NoMetrics implements PublisherMetrics {
    @Override
    public void observe(PendingEvents pending) {
        // nothing is counted
    }

    @Override
    public void onWritten(int events, boolean onDisk) {
        // nothing is counted
    }

    @Override
    public void onPublished(int events) {
        // nothing is counted
    }

    @Override
    public void onLost(int events) {
        // nothing is counted
    }

    @Override
    public void onRefused(int events) {
        // nothing is counted
    }

    @Override
    public void onExpired(int events) {
        // nothing is counted
    }

    @Override
    public void onAttemptFailed(FailureReason reason) {
        // nothing is counted
    }

    @Override
    public void onInternalError() {
        // nothing is counted
    }

    @Override
    public void close() {
        // nothing is counted
    }
}
