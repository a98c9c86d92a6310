//! `vlm-runtime`: serves vision-language models over the `OpenAI` API.

fn main() {}
