//! An open loop: requests leave at times fixed beforehand, whether those before them are answered or not, and their
//! time counts from there. Threads that block, because timers of async runtimes are a millisecond coarse.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

/// What is asked.
#[derive(Clone, Copy)]
pub struct Plan {
    pub per_second: u32,
    pub seconds: u32,
    pub body_bytes: usize,
    /// Connections, each of which has a request in flight at most.
    pub lanes: u32,
}

/// Requests before this are not counted: connections are opened, and caches filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// What came of it.
pub struct Sample {
    /// In milliseconds, ascending.
    pub milliseconds: Vec<f64>,
    pub failed: usize,
    /// All, those of the warm-up too.
    pub asked: u32,
}

impl Sample {
    /// The value that a share of all stays below.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = (self.milliseconds.len() as f64 * share) as usize;
        self.milliseconds[at.min(self.milliseconds.len() - 1)]
    }
}

/// A question about a picture, of as many bytes.
pub fn question(bytes: usize, stream: bool) -> Vec<u8> {
    let frame = |data: &str| {
        format!(
            r#"{{"model":"tiny","stream":{stream},"max_tokens":64,"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":[{{"type":"text","text":"What is in this picture?"}},{{"type":"image_url","image_url":{{"url":"data:image/jpeg;base64,{data}"}}}}]}}]}}"#
        )
    };
    let data = bytes.saturating_sub(frame("").len());
    // As mixed as the text of a real picture.
    let mut state = 1_u32;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text: String = (0..data)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(alphabet[(state >> 26) as usize])
        })
        .collect();
    let body = frame(&text);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

/// Asks one address as planned.
pub fn run(address: SocketAddr, plan: &Plan) -> Sample {
    let request: Arc<[u8]> = question(plan.body_bytes, false).into();
    let begin = Instant::now() + Duration::from_millis(200);
    let asked = plan.per_second * plan.seconds;
    let lanes: Vec<_> = (0..plan.lanes)
        .map(|lane| {
            let (request, plan) = (Arc::clone(&request), *plan);
            std::thread::spawn(move || {
                let mut connection = Connection::open(address);
                let mut results = Vec::new();
                for number in (lane..asked).step_by(plan.lanes as usize) {
                    let due = begin + Duration::from_secs(1) * number / plan.per_second;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let answered = connection.ask(&request);
                    if due >= begin + WARM_UP {
                        results.push(answered.then(|| due.elapsed().as_secs_f64() * 1e3));
                    }
                    if !answered {
                        connection = Connection::open(address);
                    }
                }
                results
            })
        })
        .collect();
    let results: Vec<_> = lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect();
    let mut milliseconds: Vec<f64> = results.iter().copied().flatten().collect();
    milliseconds.sort_by(f64::total_cmp);
    Sample { failed: results.len() - milliseconds.len(), milliseconds, asked }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream, buffer: vec![0; 16 * 1024] }
    }

    /// Sends a request and reads its answer to the end; false when that is not a whole 200.
    fn ask(&mut self, request: &[u8]) -> bool {
        if self.stream.write_all(request).is_err() {
            return false;
        }
        let mut filled = 0;
        loop {
            match self.stream.read(&mut self.buffer[filled..]) {
                Ok(read) if read > 0 => filled += read,
                _ => return false,
            }
            let Some(end) = find(&self.buffer[..filled], b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            match length {
                Some(length) if filled >= end + 4 + length => return head.starts_with("http/1.1 200"),
                Some(_) => {}
                None => return false,
            }
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
