//! How much is asked of a model: readings of its pods and of the gateways, or the answer of a Prometheus server.
//! Effects: reads. What the readings mean over time is in [`track`], which is pure.

pub mod gateways;
pub mod page;
pub mod pods;
pub mod prometheus;
pub mod reading;
pub mod track;
