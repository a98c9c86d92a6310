//! The order in which the requests of several clients get their turn: start-time fair queueing (Goyal, Vin and Cheng
//! 1996), every request of the same weight. Pure. What runs at the same time is the scheduler's business.
//!
//! # Guarantees
//! Requests of one client stay in their order. Before the first request of a client, every other client gets at most
//! one turn, however many it has waiting; before each further one, at most two.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Names a client, as far as turns are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

impl ClientId {
    /// Of what tells a client from others; `kind` keeps names of different kinds apart.
    pub fn of(kind: &str, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes()).update(&[0]).update(name);
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self(u64::from_le_bytes(first))
    }
}

/// Items that wait for their turn.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// By the round in which its turn is, then by arrival.
    waiting: BTreeMap<(u64, u64), (ClientId, T)>,
    /// The first round in which a client that has something waiting has nothing.
    free: HashMap<ClientId, u64>,
    /// The round of the last turn.
    round: u64,
    /// Clients that had a turn in it.
    served: HashSet<ClientId>,
    arrived: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), free: HashMap::new(), round: 0, served: HashSet::new(), arrived: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Puts an item behind those of the same client.
    pub fn push(&mut self, client: ClientId, item: T) {
        self.place(client, self.arrived, item);
        self.arrived += 1;
    }

    fn place(&mut self, client: ClientId, arrived: u64, item: T) {
        let free = self.free.entry(client).or_default();
        let round = self.round.max(*free);
        *free = round + 1;
        self.waiting.insert((round, arrived), (client, item));
    }

    /// The item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let ((round, _), (client, item)) = self.waiting.pop_first()?;
        if round > self.round {
            self.served.clear();
        }
        self.round = round;
        self.served.insert(client);
        self.free.retain(|_, free| *free > round);
        Some(item)
    }

    /// Lets go of the items for which `keep` is false. They no longer count against their client.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let before = self.waiting.len();
        self.waiting.retain(|_, (_, item)| keep(item));
        if self.waiting.len() < before {
            let next = self.round + 1;
            self.free = self.served.iter().map(|client| (*client, next)).collect();
            for ((_, arrived), (client, item)) in std::mem::take(&mut self.waiting) {
                self.place(client, arrived, item);
            }
        }
    }

    /// Everything, in no order that matters.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.free.clear();
        std::mem::take(&mut self.waiting).into_values().map(|(_, item)| item)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> ClientId {
        ClientId::of("test", &[number])
    }

    #[test]
    fn a_hundred_requests_of_one_client_do_not_stand_before_the_first_of_another() {
        let mut queue = FairQueue::default();
        for n in 0..100 {
            queue.push(client(1), (1, n));
        }
        assert_eq!(queue.pop(), Some((1, 0)));
        queue.push(client(2), (2, 0));
        let next: Vec<_> = (0..2).filter_map(|_| queue.pop()).collect();
        assert!(next.contains(&(2, 0)), "{next:?}");
    }

    #[test]
    fn what_was_given_up_does_not_count_against_its_client() {
        let mut queue = FairQueue::default();
        for n in 0..50 {
            queue.push(client(1), n);
        }
        queue.retain(|n| *n == 0);
        for n in 100..110 {
            queue.push(client(2), n);
        }
        queue.push(client(1), 50);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert!(order.iter().position(|n| *n == 50).unwrap() <= 4, "{order:?}");
    }

    #[derive(Clone, Debug)]
    enum Act {
        Push(u8),
        Pop,
        GiveUp(usize),
    }

    proptest! {
        #[test]
        fn nobody_is_lost_or_overtaken_by_more_than_one_of_each_other(
            acts in proptest::collection::vec(prop_oneof![
                3 => (0u8..5).prop_map(Act::Push), 2 => Just(Act::Pop), 1 => (0usize..20).prop_map(Act::GiveUp)
            ], 0..200)
        ) {
            let mut queue = FairQueue::default();
            // Per client, in order: the item, and the turns that each other client had since it came to the front.
            let mut model: HashMap<u8, Vec<usize>> = HashMap::new();
            let mut turns: HashMap<(u8, u8), usize> = HashMap::new();
            let mut number = 0;
            for act in acts.into_iter().chain(std::iter::repeat_n(Act::Pop, 200)) {
                match act {
                    Act::Push(who) => {
                        let own = model.entry(who).or_default();
                        if own.is_empty() {
                            turns.retain(|(waits, _), _| *waits != who);
                        }
                        own.push(number);
                        queue.push(client(who), (who, number));
                        number += 1;
                    }
                    Act::Pop => {
                        let Some((who, item)) = queue.pop() else {
                            prop_assert!(model.values().all(Vec::is_empty));
                            continue;
                        };
                        let own = model.get_mut(&who).unwrap();
                        prop_assert_eq!(own.remove(0), item);
                        turns.retain(|(waits, _), _| *waits != who);
                        for waits in model.iter().filter(|(_, own)| !own.is_empty()).map(|(who, _)| *who) {
                            if waits != who {
                                let had = turns.entry((waits, who)).or_default();
                                *had += 1;
                                // One turn in the round of the front item, and one in the round that its client had.
                                prop_assert!(*had <= 2, "{} overtakes {}", who, waits);
                            }
                        }
                    }
                    Act::GiveUp(which) => {
                        queue.retain(|(_, item)| *item != which);
                        for (who, own) in &mut model {
                            if own.first() == Some(&which) {
                                turns.retain(|(waits, _), _| waits != who);
                            }
                            own.retain(|item| *item != which);
                        }
                    }
                }
            }
            prop_assert!(queue.is_empty());
        }
    }
}
