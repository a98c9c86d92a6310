//! How much is asked of a model: readings of its pods, or the answer of a Prometheus server.
//! Effects: reads. What the readings mean over time is in [`track`], which is pure.

pub mod pods;
pub mod prometheus;
pub mod reading;
pub mod track;
