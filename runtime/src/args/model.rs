//! Flags of every command that loads a model: what of its files to take, and in which number formats to hold it.

use std::path::PathBuf;

use clap::Args;

use crate::device::DeviceChoice;
use crate::image::ImageAspect;
use crate::precision::PrecisionArgs;

/// How a checkpoint is read.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelArgs {
    /// Directory of the vision tower, for weights of the original LLaVA-1.5, which were published without it. Default:
    /// a directory of the tower's name inside the checkpoint or beside it.
    #[arg(long, value_name = "DIR")]
    pub vision_tower: Option<PathBuf>,
    /// Form of the conversation: a name, such as `llava_v1` or `internvl2_5` (a wrong one lists them all), or a file in
    /// Jinja. Default: the checkpoint's own, or that of its family.
    #[arg(long, value_name = "NAME|FILE")]
    pub chat_template: Option<String>,
    /// How LLaVA-1.5 makes pictures square. Default: what the checkpoint's files say.
    #[arg(long, value_name = "HOW")]
    pub image_aspect: Option<ImageAspect>,
    /// What computes.
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    pub device: DeviceChoice,
    /// In which number formats the model is held.
    #[command(flatten)]
    pub precision: PrecisionArgs,
}
