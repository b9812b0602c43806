"""The way of an event through a worker: read, plan, admit, attempt, judge, settle. Ports lead outside."""
