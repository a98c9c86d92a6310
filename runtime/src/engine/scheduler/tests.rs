//! Whatever arrives and leaves, and whenever: nothing is lost, served twice or overtaken.

use std::collections::{HashMap, HashSet};

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { slots: 3, kv_tokens: 120, chunk_while_decoding: 4, chunk: 16 };

#[derive(Clone, Debug)]
enum Action {
    Arrive { prompt: usize, new: usize, images: usize },
    Leave(usize),
    Step,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        3 => (1usize..40, 1usize..20, 0usize..3).prop_map(|(prompt, new, images)| Action::Arrive { prompt, new, images }),
        1 => any::<usize>().prop_map(Action::Leave),
        8 => Just(Action::Step),
    ];
    proptest::collection::vec(action, 1..200)
}

/// What an observer of the steps knows of a sequence.
#[derive(Default)]
struct Seen {
    encoded: usize,
    read: usize,
    generated: usize,
    slot: Option<usize>,
}

struct World {
    scheduler: Scheduler,
    alive: Vec<Sequence>,
    seen: HashMap<SequenceId, Seen>,
    finished: HashSet<SequenceId>,
    first_touched: Vec<SequenceId>,
}

impl World {
    fn new() -> Self {
        Self {
            scheduler: Scheduler::new(LIMITS),
            alive: Vec::new(),
            seen: HashMap::new(),
            finished: HashSet::new(),
            first_touched: Vec::new(),
        }
    }

    fn touch(&mut self, id: SequenceId) -> (&Sequence, &mut Seen) {
        assert!(!self.finished.contains(&id), "{id} is served after its end");
        if !self.seen.contains_key(&id) {
            self.first_touched.push(id);
        }
        let sequence = self.alive.iter().find(|s| s.id == id).expect("served a sequence that is gone");
        (sequence, self.seen.entry(id).or_default())
    }

    fn end(&mut self, id: SequenceId) {
        self.scheduler.remove(id);
        self.alive.retain(|s| s.id != id);
        self.finished.insert(id);
    }

    fn token(&mut self, id: SequenceId) {
        let (sequence, seen) = self.touch(id);
        seen.generated += 1;
        if seen.generated == sequence.max_new_tokens {
            self.end(id);
        }
    }

    /// Runs one step and returns whether there was anything to do.
    fn step(&mut self) -> bool {
        let step = self.scheduler.step();
        let slots: HashSet<usize> = step.decode.iter().map(|d| d.slot).collect();
        assert_eq!(slots.len(), step.decode.len(), "two sequences share a slot");
        let decoding = !step.decode.is_empty();
        for decode in &step.decode {
            let (sequence, seen) = self.touch(decode.id);
            assert_eq!(seen.read, sequence.prompt_tokens);
            assert_eq!(decode.position, sequence.prompt_tokens + seen.generated - 1);
            assert_eq!(seen.slot, Some(decode.slot));
        }
        match step.work {
            Some(Work::Encode { id, image }) => {
                let (sequence, seen) = self.touch(id);
                assert_eq!(image, seen.encoded);
                assert!(image < sequence.images);
                seen.encoded += 1;
            }
            Some(Work::Prefill { id, slot, start, rows, last }) => {
                let (sequence, seen) = self.touch(id);
                assert_eq!((seen.encoded, seen.read), (sequence.images, start));
                assert!(seen.slot.is_none_or(|s| s == slot) && !slots.contains(&slot));
                assert!(rows >= 1 && rows <= if decoding { LIMITS.chunk_while_decoding } else { LIMITS.chunk });
                (seen.slot, seen.read) = (Some(slot), seen.read + rows);
                assert_eq!(last, seen.read == sequence.prompt_tokens);
                assert!(seen.read <= sequence.prompt_tokens);
                if last {
                    self.token(id);
                }
            }
            None => {}
        }
        for decode in &step.decode {
            self.token(decode.id);
        }
        assert!(self.scheduler.cached_tokens() <= LIMITS.kv_tokens);
        assert!(self.scheduler.running() <= LIMITS.slots);
        decoding || step.work.is_some()
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_served_twice_or_overtaken(actions in actions()) {
        let mut world = World::new();
        let mut next = 0;
        let mut cancelled = HashSet::new();
        for action in actions {
            match action {
                Action::Arrive { prompt, new, images } => {
                    let sequence = Sequence { id: next, prompt_tokens: prompt, max_new_tokens: new, images };
                    next += 1;
                    world.alive.push(sequence);
                    world.scheduler.push(sequence);
                }
                Action::Leave(which) if !world.alive.is_empty() => {
                    let id = world.alive[which % world.alive.len()].id;
                    cancelled.insert(id);
                    world.end(id);
                }
                Action::Leave(_) => {}
                Action::Step => {
                    let idle = world.alive.is_empty();
                    prop_assert_eq!(world.step(), !idle, "a step does nothing although something is left");
                }
            }
        }
        let mut steps = 0;
        while world.step() {
            steps += 1;
            prop_assert!(steps < 100_000, "the scheduler does not come to an end");
        }
        prop_assert!(world.scheduler.is_idle() && world.alive.is_empty());
        prop_assert_eq!(world.scheduler.free_slots.len(), LIMITS.slots, "a slot leaked");
        prop_assert_eq!(world.scheduler.reserved, 0, "tokens leaked");
        prop_assert_eq!(world.finished.len() as u64, next);
        // Admission keeps the order of arrival; cancelled ones may be missing.
        prop_assert!(world.first_touched.is_sorted(), "overtaken: {:?}", world.first_touched);
    }
}

#[test]
fn running_streams_get_a_token_in_every_step_while_a_long_prompt_is_read() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.push(Sequence { id: 1, prompt_tokens: 2, max_new_tokens: 30, images: 0 });
    assert!(matches!(scheduler.step().work, Some(Work::Prefill { id: 1, last: true, .. })));
    scheduler.push(Sequence { id: 2, prompt_tokens: 20, max_new_tokens: 5, images: 1 });
    let mut works = Vec::new();
    for _ in 0..6 {
        let step = scheduler.step();
        assert_eq!(step.decode.first().map(|d| d.id), Some(1));
        works.extend(step.work);
    }
    assert_eq!(works.len(), 6);
    assert!(matches!(works[0], Work::Encode { id: 2, image: 0 }));
    assert!(matches!(works[5], Work::Prefill { start: 16, rows: 4, last: true, .. }));
}
