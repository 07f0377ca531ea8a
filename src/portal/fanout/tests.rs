//! The fan-out over scripted services.
