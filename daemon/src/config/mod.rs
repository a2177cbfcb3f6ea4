//! Configuration: `raw` (as typed) → `resolve` (as meant) → a view; `watch` reloads.
