//! What the tests of both sides share: a client, temporary namespaces, waiting for a condition.
