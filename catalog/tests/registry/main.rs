//! Every published checkpoint of LLaVA-1.5 and 1.6 and InternVL 2, 2.5 and 3: its size, and what it takes on which GPU.

#![allow(clippy::unwrap_used, clippy::panic)]

mod fit;
mod sizes;
mod table;
