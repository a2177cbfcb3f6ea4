//! How values become bytes in the log and in snapshots: bincode behind this one file, never a peer's message as such.

use serde::{Serialize, de::DeserializeOwned};

/// Most bytes that one value may claim: the largest document of the control plane and what goes with it.
const BYTES_MAX: usize = 16 << 20;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<BYTES_MAX>,
> = bincode::config::standard().with_limit::<BYTES_MAX>();

/// Appends a value; `false`: it cannot be encoded, and `bytes` is as it was.
#[must_use]
pub(crate) fn put<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> bool {
    let before = bytes.len();
    let put = bincode::serde::encode_into_std_write(value, bytes, CONFIG).is_ok();
    if !put {
        bytes.truncate(before);
    }
    put
}

/// Takes a value from the front; `None`: the bytes are not one.
pub(crate) fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    let (value, length) = bincode::serde::decode_from_slice(bytes, CONFIG).ok()?;
    *bytes = bytes.get(length..)?;
    Some(value)
}
