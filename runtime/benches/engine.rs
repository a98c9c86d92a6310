//! Speed of the core on one checkpoint: preprocessing, vision tower, prefill, decode.
//!
//! `RAYON_NUM_THREADS=1 taskset -c 0 cargo bench --workspace --bench engine [-- MODEL PICTURE]`
//! prints the table that `results/` keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::image::{ImageLimits, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::ops::{Batch, Segment, nth_table, room_for};
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::{Processor, PromptMessage, PromptPart, PromptRole};

const STEPS: usize = 64;
const REPEATS: usize = 15;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").map(PathBuf::from);
    let model = arguments.next().unwrap_or_else(|| root.join("examples/tiny-llava/model"));
    let picture = arguments.next().unwrap_or_else(|| root.join("tests/fixtures/llava15_llama_hub/images/0.png"));
    let checkpoint = Checkpoint::open(&model).unwrap();
    let processor = Processor::open(&checkpoint).unwrap();
    let bytes = std::fs::read(picture).unwrap();
    let prepare = || processor.prepare_image(&bytes, &ImageLimits::default()).unwrap();
    let image = Arc::new(prepare());
    let text = &checkpoint.config().text;
    println!("{} layers of {}, {} threads", text.layers, text.hidden_size, rayon::current_num_threads());
    println!("| what | processor | per second | clock | per second |\n|---|---|---|---|---|");
    row("picture to pixels", 1, timed(|| drop(prepare())));
    model_rows(&checkpoint, &processor, &image);
}

fn model_rows(checkpoint: &Checkpoint, processor: &Processor, image: &Arc<PreparedImage>) {
    let parts =
        vec![PromptPart::Image(Arc::clone(image)), PromptPart::Text("What is shown in this picture?".to_owned())];
    let prompt = processor.prompt(&[PromptMessage { role: PromptRole::User, parts }]).unwrap();
    let prefill = prompt.ids.len();
    let tokens = prefill + STEPS;
    let model = VisionLanguage::load(checkpoint, tokens, Precision::F32).unwrap();
    let language = model.language();
    let encode = || model.project(&model.vision_features(image).unwrap()).unwrap();
    row("pixels to visual tokens", 1, timed(|| drop(encode())));
    let embeds = model.embed(&prompt.ids, prompt.image_token, &[encode()]).unwrap();
    for batch in [1, 8] {
        let cache = model.kv_cache(room_for(batch, tokens)).unwrap();
        let tables: Vec<Vec<u32>> = (0..batch).map(|n| nth_table(n, tokens)).collect();
        let read = |n: usize| {
            let batch = Batch::new(&[Segment { blocks: &tables[n], start: 0, rows: prefill, long: false }]);
            let hidden = language.forward(&embeds, &batch, &cache).unwrap();
            language.logits(&hidden, batch.last_rows()).unwrap()
        };
        if batch == 1 {
            row(&format!("prefill of {prefill} tokens"), prefill, timed(|| drop(read(0))));
        }
        (0..batch).for_each(|n| drop(read(n)));
        let decode = timed(|| {
            for step in 0..STEPS {
                let segment = |blocks| Segment { blocks, start: prefill + step, rows: 1, long: false };
                let segments: Vec<Segment<'_>> = tables.iter().map(|table| segment(table)).collect();
                let rows = Batch::new(&segments);
                let ids: Vec<u32> = (0..batch).map(|n| 5 + (step * 31 + n * 7) as u32 % 100).collect();
                let hidden = language.forward(&language.embed(&ids).unwrap(), &rows, &cache).unwrap();
                language.logits(&hidden, rows.last_rows()).unwrap().to_vec2::<f32>().unwrap();
            }
        });
        row(&format!("{STEPS} decode steps of {batch}, after {prefill} tokens"), STEPS * batch, decode);
    }
}

/// Middle of the repeats, by the clock and by what the processor spent on this thread: on a machine
/// with other work only the second is the code's own. With one thread all work is on this one.
fn timed(mut run: impl FnMut()) -> [Duration; 2] {
    run();
    let mut times = [[Duration::ZERO; 2]; REPEATS];
    for time in &mut times {
        let (start, spent) = (Instant::now(), processor_time());
        run();
        *time = [start.elapsed(), processor_time().saturating_sub(spent)];
    }
    [0, 1].map(|column| {
        let mut column: Vec<Duration> = times.iter().map(|time| time[column]).collect();
        column.sort();
        column[REPEATS / 2]
    })
}

/// From the kernel's scheduler, in nanoseconds.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn row(what: &str, count: usize, [clock, spent]: [Duration; 2]) {
    let [clock, spent] = [clock, spent].map(|time| time.as_secs_f64());
    let rate = |seconds: f64| count as f64 / seconds;
    println!("| {what} | {:.2} ms | {:.0} | {:.2} ms | {:.0} |", spent * 1e3, rate(spent), clock * 1e3, rate(clock));
}
