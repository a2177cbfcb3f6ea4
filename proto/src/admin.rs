//! What the admin API says: requests and replies as plain data.
