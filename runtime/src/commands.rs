//! What the binary can do: one module a subcommand.

pub mod serve;
