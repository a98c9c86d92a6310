//! `vlm-operator`: the controller process.

fn main() {}
