//! Many open streams, and the memory of what they go through.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{load::question, sides::Side};

pub const COUNT: usize = 1000;
pub const SECONDS: u64 = 60;
/// Until every stream has begun.
const BEGINNING: Duration = Duration::from_secs(5);

/// Resident memory in MiB.
pub struct Held {
    pub before: f64,
    pub begun: f64,
    pub least: f64,
    pub most: f64,
    pub events_per_second: f64,
}

/// Holds the streams open and reads them.
pub fn hold(side: &Side) -> Held {
    let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let before = side.resident_mebibytes();
    let request: Arc<[u8]> = question(10_000, true).into();
    let address = side.address;
    let readers: Vec<_> = (0..COUNT)
        .map(|_| {
            let (stop, bytes, request) = (Arc::clone(&stop), Arc::clone(&bytes), Arc::clone(&request));
            let reader = std::thread::Builder::new().stack_size(64 * 1024);
            reader.spawn(move || read(&mut TcpStream::connect(address).unwrap(), &request, &stop, &bytes)).unwrap()
        })
        .collect();
    std::thread::sleep(BEGINNING);
    let begun = side.resident_mebibytes();
    let (from, since) = (bytes.load(Ordering::Relaxed), Instant::now());
    let mut seen = Vec::new();
    for _ in 0..SECONDS {
        std::thread::sleep(Duration::from_secs(1));
        seen.push(side.resident_mebibytes());
    }
    let passed = (bytes.load(Ordering::Relaxed) - from) as f64 / since.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let whole = readers.into_iter().map(|reader| reader.join().unwrap()).filter(|whole| *whole).count();
    assert_eq!(whole, COUNT, "streams broke");
    Held {
        before,
        begun,
        least: seen.iter().copied().fold(f64::INFINITY, f64::min),
        most: seen.iter().copied().fold(0.0, f64::max),
        events_per_second: passed,
    }
}

/// Reads until it is told to stop; false when the stream ends before that.
fn read(stream: &mut TcpStream, request: &[u8], stop: &AtomicBool, events: &AtomicU64) -> bool {
    let mut piece = [0; 4096];
    if stream.write_all(request).is_err() {
        return false;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => {
                let ends = piece[..read].windows(6).filter(|window| *window == b"data: ").count();
                events.fetch_add(ends as u64, Ordering::Relaxed);
            }
            _ => return false,
        }
    }
    true
}
