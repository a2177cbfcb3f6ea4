//! The one way in which the rules ask for a planted fault.

/// Whether the owner of a state machine (with a field `faults`) was given a fault; never, and at no cost, in a build
/// without the feature.
#[cfg(feature = "faults")]
macro_rules! planted {
    ($owner:expr, $fault:ident) => {
        $owner.faults.has($crate::faults::Fault::$fault)
    };
}
#[cfg(not(feature = "faults"))]
macro_rules! planted {
    ($owner:expr, $fault:ident) => {
        false
    };
}
pub(crate) use planted;
