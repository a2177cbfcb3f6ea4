//! Servers that are child processes speaking JSON-RPC lines, one process a session.
