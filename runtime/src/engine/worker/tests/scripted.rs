//! An executor that does what prompts tell it to.

use std::collections::VecDeque;

use super::*;
use crate::engine::executor::Executor;
use crate::ops::Choice;

/// Answers with 3, 3, 3 …; does something else where a prompt says so by its first id.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is something that a test asks for alone")]
pub struct Scripted {
    pub prompts: HashMap<SequenceId, u32>,
    pub log: Arc<Mutex<Vec<String>>>,
    /// Whether no picture can be seen.
    pub blind: bool,
    /// Whether what decodes is read beside prompts.
    pub mixes: bool,
    /// Whether steps are begun ahead, and none can be.
    pub ahead: bool,
    pub stuck: bool,
    /// Steps that were begun and can be asked for before the device is lost.
    pub lost_after: Option<usize>,
    /// What follows from the steps that were begun.
    pub begun: VecDeque<Vec<(SequenceId, Next)>>,
}

pub const WELL: u32 = 0;
pub const FAILS: u32 = 1;
pub const NAN: u32 = 2;
pub const PANICS: u32 = 3;
pub const NAN_LATER: u32 = 4;
pub const LOSES_THE_DEVICE: u32 = 5;
pub const IMAGE: u32 = 6;
/// All tokens are as likely.
pub const DRAWS: u32 = 7;

impl Scripted {
    fn next(&self, id: SequenceId, choice: Option<Choice>, decoding: bool) -> Next {
        let mut logits = vec![0.0; VOCABULARY];
        logits[3] = if self.prompts[&id] == DRAWS { 0.0 } else { 1.0 };
        if self.prompts[&id] == NAN || (decoding && self.prompts[&id] == NAN_LATER) {
            logits[5] = f32::NAN;
        }
        match choice {
            Some(choice) => Next::Token(choice.of(&logits)),
            None => Next::Logits(logits),
        }
    }
}

impl Executor for Scripted {
    fn begin(&mut self, _: SequenceId, _: Vec<Arc<PreparedImage>>) {}

    fn end(&mut self, id: SequenceId) {
        self.log.lock().unwrap().push(format!("end {id}"));
        self.prompts.remove(&id);
    }

    fn drop_picture(&mut self, key: &ImageKey) {
        self.log.lock().unwrap().push(format!("drop {key:?}"));
    }

    fn encode(&mut self, tiles: &[Tiles]) -> Result<Vec<()>, Failure> {
        for Tiles { id, first, count, .. } in tiles {
            self.log.lock().unwrap().push(format!("encode {id} {first} {count}"));
        }
        if self.blind { Err(Failure::Step("told to be blind".to_owned())) } else { Ok(vec![(); tiles.len()]) }
    }

    fn prefill(&mut self, readings: &[Reading<'_>]) -> Result<Vec<Option<Next>>, Failure> {
        let mut all = Vec::new();
        for Reading { id, ids, last, choice, .. } in readings {
            self.log.lock().unwrap().push(format!("prefill {id} {}", ids.len()));
            // Every id of a prompt is the same.
            match *self.prompts.entry(*id).or_insert(ids[0]) {
                FAILS | LOSES_THE_DEVICE => return Err(Failure::Step("told to fail".to_owned())),
                PANICS => panic!("told to panic"),
                _ => all.push(last.then(|| self.next(*id, *choice, ids.len() == 1))),
            }
        }
        Ok(all)
    }

    fn decode(&mut self, feedings: &[Feeding<'_>]) -> Result<Vec<Next>, Failure> {
        std::thread::sleep(Duration::from_millis(2));
        self.log.lock().unwrap().push("decode".to_owned());
        Ok(feedings.iter().map(|feeding| self.next(feeding.id, feeding.choice, true)).collect())
    }

    fn runs_ahead(&self) -> bool {
        self.ahead
    }

    fn begin_decode(&mut self, feedings: &[Feeding<'_>], follows: Option<&[usize]>) -> Result<(), Failure> {
        if self.stuck {
            return Err(Failure::Step("told to be stuck".to_owned()));
        }
        assert_eq!(follows.is_some(), !self.begun.is_empty(), "tokens are known when nothing is under way");
        for (feeding, row) in feedings.iter().zip(follows.unwrap_or_default()) {
            assert_eq!(self.begun.back().unwrap()[*row].0, feeding.id, "another's token is fed");
        }
        self.log.lock().unwrap().push(format!("begin {}", feedings.len()));
        let next = feedings.iter().map(|feeding| (feeding.id, self.next(feeding.id, feeding.choice, true)));
        let next = next.collect();
        self.begun.push_back(next);
        Ok(())
    }

    fn begun(&mut self) -> Result<Vec<Next>, Failure> {
        std::thread::sleep(Duration::from_millis(2));
        self.log.lock().unwrap().push("begun".to_owned());
        if self.lost_after == Some(0) {
            return Err(Failure::Step("told to be lost".to_owned()));
        }
        self.lost_after = self.lost_after.map(|more| more - 1);
        Ok(self.begun.pop_front().expect("nothing was begun").into_iter().map(|(_, next)| next).collect())
    }

    fn graphs(&self) -> (u64, u64) {
        (self.log.lock().unwrap().iter().filter(|line| *line == "decode").count() as u64, 2)
    }

    fn mixes(&self) -> bool {
        self.mixes
    }

    fn lost(&self) -> bool {
        self.lost_after == Some(0) || self.prompts.values().any(|prompt| *prompt == LOSES_THE_DEVICE)
    }
}
