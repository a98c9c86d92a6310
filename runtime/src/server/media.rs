//! Pictures and text into the engine's input, away from the async threads. At most one picture per
//! core is decoded at a time; a request whose client has gone is given up at its next picture.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use image::RgbImage;
use tokio::sync::Semaphore;

use super::admission::BodyRoom;
use super::app::{App, Loaded};
use super::call::{Call, Picture, Turn, TurnPart, Upload};
use super::data_url;
use super::error::ApiError;
use super::pictures::Pictures;
use crate::image::{ImageKey, PreparedImage, TileBudget, decode};
use crate::processor::Processor;
use crate::prompt::{Prompt, PromptMessage, PromptPart};

/// No tokenizer has a token of more bytes, so that a text of more than this many times the context
/// cannot fit and need not be tokenised to find out.
const LONGEST_TOKEN: usize = 512;
/// Texts of at most so many bytes and turns are made a prompt where they are: a change of threads would cost more.
const INLINE_BYTES: usize = 4 * 1024;
const INLINE_TURNS: usize = 16;
/// Pictures of one request that are under way at once.
const AT_ONCE: usize = 4;
/// Bytes of prepared pictures that are kept although nobody uses them: four of the largest of InternVL, or 99 of
/// LLaVA-1.5.
const PREPARED_BYTES: usize = 32 << 20;
/// Bytes of decoded pictures that are kept: one of eleven million pixels. What is prepared of them depends on the
/// `detail` that is asked for, and on how many pictures share a short context.
const DECODED_BYTES: usize = 32 << 20;

/// Bounds the decoding of pictures, and knows those in use and the last ones.
#[derive(Debug)]
pub struct MediaPool {
    cores: Arc<Semaphore>,
    decoded: Pictures<RgbImage>,
    prepared: Pictures<PreparedImage>,
}

impl Default for MediaPool {
    fn default() -> Self {
        Self::new()
    }
}

impl MediaPool {
    /// As many decode at a time as there are cores.
    pub fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            cores: Arc::new(Semaphore::new(cores)),
            decoded: Pictures::new(DECODED_BYTES),
            prepared: Pictures::new(PREPARED_BYTES),
        }
    }

    /// Runs `work` on a thread for blocking work, once a core is free for it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let core = Arc::clone(&self.cores).acquire_owned().await.map_err(|_| ApiError::Internal)?;
        // The core is taken for as long as the thread works, whether or not somebody still waits for it.
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(core);
            done
        });
        working.await.unwrap_or_else(|error| {
            tracing::error!(%error, "preparing a request panicked");
            Err(ApiError::Internal)
        })
    }
}

/// Decodes the pictures of a request and makes its prompt. `room` is given back when the bodies'
/// bytes are gone. Several pictures share the tiles of one where otherwise there would be no room for an answer.
pub async fn prepare(app: &Arc<App>, model: &Loaded, call: &mut Call, room: BodyRoom) -> Result<Prompt, ApiError> {
    let text_bytes = call.text_bytes();
    fits(text_bytes, model.max_tokens, "messages")?;
    let turns = Arc::new(std::mem::take(&mut call.turns));
    let job = Job { app: Arc::clone(app), processor: Arc::clone(&model.processor), turns };
    if text_bytes <= INLINE_BYTES && job.turns.len() <= INLINE_TURNS && job.uploads().next().is_none() {
        return job.build(Vec::new());
    }
    let web = job.uploads().filter(|upload| matches!(upload.picture, Picture::Web(_))).count();
    let fetch_room = if web > 0 { Some(app.sources.room(web).await.ok_or(ApiError::Internal)?) } else { None };
    let fetched = job.fetch().await?;
    let prompt = job.prompt(&fetched, TileBudget::default()).await?;
    let prompt = match job.processor.smaller_tiles(&prompt, model.max_tokens) {
        Some(budget) => {
            drop(prompt);
            job.prompt(&fetched, budget).await?
        }
        None => prompt,
    };
    drop((job, fetched, fetch_room, room));
    Ok(prompt)
}

/// Refuses texts of so many bytes that no tokenizer could make as few as `most` tokens of them.
pub fn fits(bytes: usize, most: usize, param: &'static str) -> Result<(), ApiError> {
    if bytes / LONGEST_TOKEN <= most {
        return Ok(());
    }
    let message =
        format!("{param}: {bytes} bytes of text are more than {most} tokens can hold, the context; shorten the text");
    Err(ApiError::ContextLength { param, message })
}

/// One request's pictures and text.
#[derive(Clone)]
struct Job {
    app: Arc<App>,
    processor: Arc<Processor>,
    turns: Arc<Vec<Turn>>,
}

impl Job {
    fn uploads(&self) -> impl Iterator<Item = &Upload> {
        self.turns.iter().flat_map(|turn| &turn.parts).filter_map(|part| match part {
            TurnPart::Image(upload) => Some(upload),
            TurnPart::Text(_) => None,
        })
    }

    /// The bytes of the pictures that are elsewhere, by their place among all pictures.
    async fn fetch(&self) -> Result<Vec<Option<Bytes>>, ApiError> {
        let fetching = self.uploads().map(|upload| async {
            let Picture::Web(url) = &upload.picture else { return Ok(None) };
            let begun = Instant::now();
            let fetched = self.app.sources.fetch(url.clone(), &upload.param).await;
            self.app.metrics.fetched(begun.elapsed());
            fetched.map(Some)
        });
        let fetching: Vec<_> = fetching.collect();
        futures::stream::iter(fetching).buffered(AT_ONCE).try_collect().await
    }

    async fn prompt(&self, fetched: &[Option<Bytes>], budget: TileBudget) -> Result<Prompt, ApiError> {
        let preparing = (0..fetched.len()).map(|index| self.image(index, fetched[index].clone(), budget));
        let preparing: Vec<_> = preparing.collect();
        let images: Vec<Arc<PreparedImage>> = futures::stream::iter(preparing).buffered(AT_ONCE).try_collect().await?;
        let job = self.clone();
        let work = tokio::task::spawn_blocking(move || job.build(images));
        work.await.unwrap_or_else(|error| {
            tracing::error!(%error, "making a prompt panicked");
            Err(ApiError::Internal)
        })
    }

    /// The blocking part after the pictures.
    fn build(&self, images: Vec<Arc<PreparedImage>>) -> Result<Prompt, ApiError> {
        let mut images = images.into_iter();
        let mut messages = Vec::with_capacity(self.turns.len());
        for turn in self.turns.iter() {
            let parts = turn.parts.iter().map(|part| match part {
                TurnPart::Text(text) => Some(PromptPart::Text(text.clone())),
                TurnPart::Image(_) => images.next().map(PromptPart::Image),
            });
            let parts = parts.collect::<Option<Vec<_>>>().ok_or(ApiError::Internal)?;
            messages.push(PromptMessage { role: turn.role, parts });
        }
        Ok(self.processor.prompt(&messages)?)
    }

    /// The `index`-th picture.
    async fn image(
        &self,
        index: usize,
        fetched: Option<Bytes>,
        budget: TileBudget,
    ) -> Result<Arc<PreparedImage>, ApiError> {
        let media = &self.app.media;
        let job = self.clone();
        let (bytes, file, key, budget) = media
            .run(move || {
                let upload = job.uploads().nth(index).ok_or(ApiError::Internal)?;
                let bytes = fetched.map_or_else(|| job.bytes(upload), Ok)?;
                let budget = upload.detail.and(budget);
                let file = ImageKey::of_file(&bytes);
                Ok((bytes, file, job.processor.image_key(file, budget), budget))
            })
            .await?;
        self.app.metrics.image_bytes(bytes.len());
        let mut decoded_here = false;
        let preparing = async {
            // What is decoded is cut on the same thread, while it is in its cache.
            let mut cut = None;
            let decoding = async {
                let (pixels, prepared) = self.decode(index, bytes, budget, key).await?;
                (decoded_here, cut) = (true, Some(prepared));
                Ok::<_, ApiError>(pixels)
            };
            let pixels = media.decoded.get(file, decoding).await?.made;
            if let Some(prepared) = cut {
                return Ok(prepared);
            }
            let processor = Arc::clone(&self.processor);
            media.run(move || Ok(processor.cut_image(&pixels, budget, key))).await
        };
        let image = media.prepared.get(key, preparing).await?.made;
        self.app.metrics.image(image.tiles, !decoded_here);
        Ok(image)
    }

    /// The `index`-th picture as it is, and as the model takes it.
    async fn decode(
        &self,
        index: usize,
        bytes: Bytes,
        budget: TileBudget,
        key: ImageKey,
    ) -> Result<(RgbImage, PreparedImage), ApiError> {
        let job = self.clone();
        let work = move || {
            let begun = Instant::now();
            let decoded = decode(&bytes, &job.app.limits.image).map(|pixels| {
                let prepared = job.processor.cut_image(&pixels, budget, key);
                (pixels, prepared)
            });
            job.app.metrics.decoded(begun.elapsed());
            decoded.map_err(|source| {
                let param = job.uploads().nth(index).map(|upload| upload.param.clone()).unwrap_or_default();
                ApiError::Image { param, source }
            })
        };
        self.app.media.run(work).await
    }

    /// The bytes of a picture that is here.
    fn bytes(&self, Upload { param, picture, .. }: &Upload) -> Result<Bytes, ApiError> {
        let most = self.app.limits.image.max_bytes;
        match picture {
            Picture::File(bytes) => Ok(bytes.clone()),
            Picture::DataUrl(url) => {
                let data = data_url::base64_of(url, param)?;
                Ok(data_url::decode(data, most, param)?.into())
            }
            Picture::Path(path) => self.app.sources.read(path, most, param),
            // It was fetched before.
            Picture::Web(_) => Err(ApiError::Internal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::timeout;

    use super::*;

    /// How long is waited for what must not happen.
    const A_WHILE: Duration = Duration::from_millis(150);

    #[tokio::test]
    async fn works_at_once_are_no_more_than_cores_even_when_clients_leave() {
        let pool = Arc::new(MediaPool::new());
        let cores = pool.cores.available_permits();
        assert_eq!(cores, available_parallelism().map_or(1, usize::from));
        let (begun, mut begins) = unbounded_channel();
        let (mut ends, mut clients) = (Vec::new(), Vec::new());
        // One more than there are cores.
        for work in 0..=cores {
            let (end, ended) = channel::<()>();
            let (pool, begun) = (Arc::clone(&pool), begun.clone());
            let working = async move {
                let work = move || {
                    begun.send(work).unwrap();
                    // Also when the test is over.
                    let _ = ended.recv();
                    Ok(work)
                };
                pool.run(work).await
            };
            ends.push(end);
            clients.push(tokio::spawn(working));
        }
        let mut working = Vec::new();
        for _ in 0..cores {
            working.push(begins.recv().await.unwrap());
        }
        working.sort_unstable();
        assert_eq!(working, (0..cores).collect::<Vec<_>>());
        assert!(timeout(A_WHILE, begins.recv()).await.is_err(), "one more works than there are cores");
        // Nobody waits for the first any more, but its thread works on.
        let first = clients.remove(0);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(timeout(A_WHILE, begins.recv()).await.is_err(), "a core that works is given to another");
        ends[0].send(()).unwrap();
        assert_eq!(begins.recv().await, Some(cores));
        drop(ends);
        for (client, work) in clients.into_iter().zip(1..) {
            assert_eq!(client.await.unwrap().unwrap(), work);
        }
        assert_eq!(pool.cores.available_permits(), cores);
    }
}
