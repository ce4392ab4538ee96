//! The load: hosts that all run what the recording recorded, each with a phase and a scale of
//! its own.

