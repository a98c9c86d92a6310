//! Gateways, pods and the clock between them.

use std::{cmp::Reverse, collections::BinaryHeap, net::SocketAddr, time::Duration};

use vlm_gateway::{
    balance::{Endpoint, Pods},
    hold::{Queue, Waiter},
    request::affinity::{Affinity, hash},
};

use crate::{
    pod::{CONCURRENCY, Pod, Request},
    trace::{Question, Random, Trace},
};

/// Requests given to a pod beyond those that it computes, as `scaling.target.queueDepth` has it by default.
const QUEUE_DEPTH: usize = 2;
const WINDOW: u32 = (CONCURRENCY + QUEUE_DEPTH) as u32;
const GATEWAYS: usize = 2;

/// Which pod is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    RoundRobin,
    LeastBusy,
    Text,
    Pictures,
}

impl Policy {
    pub const ALL: [Self; 4] = [Self::RoundRobin, Self::LeastBusy, Self::Text, Self::Pictures];

    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::LeastBusy => "least busy",
            Self::Text => "hash of the text",
            Self::Pictures => "hash of the pictures (ours)",
        }
    }

    fn affinity(self, question: &Question) -> Option<Affinity> {
        match self {
            Self::RoundRobin | Self::LeastBusy => None,
            Self::Text => Some(Affinity(hash(&question.text.to_le_bytes()))),
            Self::Pictures => Some(Affinity(hash(&question.picture.to_le_bytes()))),
        }
    }
}

/// What came of a trace.
#[derive(Default)]
pub struct Outcome {
    pub first_token_milliseconds: Vec<f64>,
    pub hits: usize,
    /// Of the pod that got the most in its life, over what all got in that time at the mean.
    pub most_over_mean_requests: f64,
    /// The same of what is in flight.
    pub most_over_mean_in_flight: f64,
}

/// One gateway.
struct Gateway {
    pods: Pods,
    waiting: Queue<usize>,
    turn: usize,
}

/// What a pod was given while it was there, and what the pods of the same moments were given at the mean.
#[derive(Default)]
struct Share {
    requests: f64,
    mean_requests: f64,
    /// Requests times milliseconds.
    in_flight: f64,
    mean_in_flight: f64,
    since: f64,
    until: Option<f64>,
}

#[derive(PartialEq, PartialOrd, Eq, Ord)]
enum Event {
    Arrives(usize),
    Steps(usize),
    Changes,
}

struct World<'a> {
    policy: Policy,
    trace: &'a Trace,
    questions: Vec<Question>,
    gateways: Vec<Gateway>,
    pods: Vec<Pod>,
    shares: Vec<Share>,
    /// By time in nanoseconds, then by order of their making.
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    made: usize,
    now: f64,
    outcome: Outcome,
}

pub fn run(trace: &Trace, policy: Policy, seed: u64) -> Outcome {
    let gateway = |turn| Gateway { pods: Pods::default(), waiting: Queue::default(), turn };
    let mut world = World {
        policy,
        trace,
        questions: trace.questions(seed + 1),
        gateways: (0..GATEWAYS).map(gateway).collect(),
        pods: Vec::new(),
        shares: Vec::new(),
        events: BinaryHeap::new(),
        made: 0,
        now: 0.0,
        outcome: Outcome::default(),
    };
    (0..trace.pods).for_each(|_| world.add_pod());
    world.publish();
    for number in 0..world.questions.len() {
        world.at(world.questions[number].at, Event::Arrives(number));
    }
    if let Some(every) = trace.change_every {
        world.at(every, Event::Changes);
    }
    let mut random = Random(seed + 77);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if event == Event::Changes && !world.is_asked() {
            continue;
        }
        world.pass_to(at as f64 / 1e6);
        match event {
            Event::Arrives(number) => {
                // Clients come to either gateway.
                let gateway = (random.share() * GATEWAYS as f64) as usize % GATEWAYS;
                let affinity = policy.affinity(&world.questions[number]);
                let waiter = Waiter { bytes: 1, affinity, tried: Vec::new(), since: world.clock(), tell: number };
                let place = (world.clock(), number as u64);
                world.gateways[gateway].waiting.put(place, waiter);
                world.release(gateway);
            }
            Event::Steps(pod) => world.step(pod),
            Event::Changes => world.change(),
        }
    }
    world.finish()
}

impl World<'_> {
    fn at(&mut self, milliseconds: f64, event: Event) {
        self.made += 1;
        self.events.push(Reverse(((milliseconds * 1e6) as u64, self.made, event)));
    }

    fn pass_to(&mut self, now: f64) {
        let passed = now - self.now;
        let ready = || self.pods.iter().filter(|pod| pod.ready);
        let mean = ready().map(Pod::in_flight).sum::<usize>() as f64 / ready().count() as f64;
        for (pod, share) in self.pods.iter().zip(&mut self.shares).filter(|(pod, _)| pod.ready) {
            share.in_flight += pod.in_flight() as f64 * passed;
            share.mean_in_flight += mean * passed;
        }
        self.now = now;
    }

    /// A pod is given a request.
    fn count(&mut self, pod: usize) {
        self.shares[pod].requests += 1.0;
        let ready = self.pods.iter().filter(|pod| pod.ready).count() as f64;
        for (_, share) in self.pods.iter().zip(&mut self.shares).filter(|(pod, _)| pod.ready) {
            share.mean_requests += 1.0 / ready;
        }
    }

    fn add_pod(&mut self) {
        // As a Deployment names them: without order.
        let name = format!("model-{:05x}", hash(&self.pods.len().to_le_bytes()) & 0xf_ffff);
        self.pods.push(Pod::new(name, self.trace.room));
        self.shares.push(Share { since: self.now, ..Share::default() });
    }

    /// Whether questions are still to come: after the last, pods change no more.
    fn is_asked(&self) -> bool {
        self.events.iter().any(|Reverse((_, _, event))| matches!(event, Event::Arrives(_)))
    }

    /// The oldest pod goes, once it has answered what it has, and a new one comes.
    fn change(&mut self) {
        if let Some(oldest) = self.pods.iter().position(|pod| pod.ready) {
            self.pods[oldest].ready = false;
            self.shares[oldest].until = Some(self.now);
        }
        self.add_pod();
        self.publish();
        (0..GATEWAYS).for_each(|gateway| self.release(gateway));
        if let Some(every) = self.trace.change_every {
            self.at(self.now + every, Event::Changes);
        }
    }

    fn publish(&mut self) {
        let address = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 8000));
        let ready = self.pods.iter().enumerate().filter(|(_, pod)| pod.ready);
        let all: Vec<_> =
            ready.map(|(n, pod)| Endpoint { pod: pod.name.clone(), address: address(n), ready: true }).collect();
        self.gateways.iter_mut().for_each(|gateway| gateway.pods.update(&all));
    }

    fn clock(&self) -> Duration {
        Duration::from_secs_f64(self.now / 1e3)
    }

    fn release(&mut self, at: usize) {
        loop {
            let (gateway, now) = (&self.gateways[at], self.clock());
            let suits = |waiter: &Waiter<usize>| gateway.pods.suits(WINDOW, waiter.affinity, now);
            let Some((place, waiter)) = gateway.waiting.turn(now, suits) else { return };
            let number = waiter.tell;
            let Some(pod) = self.choose(at, number) else { return };
            self.gateways[at].waiting.remove(place);
            let question = self.questions[number];
            self.gateways[at].waiting.seated(Duration::from_secs_f64((self.now - question.at).max(0.0) / 1e3));
            self.count(pod);
            self.pods[pod].ask(Request { number, picture: question.picture, arrived: question.at, gateway: at });
            self.begin(pod);
        }
    }

    fn choose(&mut self, at: usize, number: usize) -> Option<usize> {
        let gateway = &mut self.gateways[at];
        if self.policy == Policy::RoundRobin {
            let ready: Vec<_> = (0..self.pods.len()).filter(|pod| self.pods[*pod].ready).collect();
            gateway.turn += 1;
            return ready.get(gateway.turn % ready.len()).copied();
        }
        let affinity = self.policy.affinity(&self.questions[number]);
        let (name, _) = gateway.pods.take(WINDOW, affinity, &[], Duration::from_secs_f64(self.now / 1e3))?;
        self.pods.iter().position(|pod| pod.name == name)
    }

    fn begin(&mut self, pod: usize) {
        if let Some(takes) = self.pods[pod].begin() {
            self.at(self.now + takes, Event::Steps(pod));
        }
    }

    fn step(&mut self, pod: usize) {
        let done = self.pods[pod].end();
        if let Some((request, hit)) = done.first {
            self.outcome.first_token_milliseconds.push(self.now - request.arrived);
            self.outcome.hits += usize::from(hit);
        }
        self.begin(pod);
        for request in done.answered {
            debug_assert!(request.number < self.questions.len());
            if self.policy != Policy::RoundRobin {
                let name = self.pods[pod].name.clone();
                let now = self.clock();
                self.gateways[request.gateway].pods.give_back(&name, true, now);
            }
            self.release(request.gateway);
        }
    }

    fn finish(mut self) -> Outcome {
        assert_eq!(self.outcome.first_token_milliseconds.len(), self.questions.len(), "requests were lost");
        let life = |share: &Share| share.until.unwrap_or(self.now) - share.since;
        let whole = |share: &&Share| life(share) >= self.trace.change_every.unwrap_or(0.0);
        let most = |of: &dyn Fn(&Share) -> f64| self.shares.iter().filter(whole).map(of).fold(0.0, f64::max);
        self.outcome.most_over_mean_requests = most(&|share| share.requests / share.mean_requests);
        self.outcome.most_over_mean_in_flight = most(&|share| share.in_flight / share.mean_in_flight);
        self.outcome
    }
}
