//! One history: who is polled when, who dies, what operators do to the stores; all drawn from one seed.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use votes::{Offset, Partition};

use crate::{
    check, consumer,
    log::Electorate,
    mutants::Mutant,
    stores::{Seat, step},
    world::{BookState, Faults, Phase, Shared, TalliesState, World},
};

/// How many polls everybody has to finish once the faults are over.
const PATIENCE: u32 = 20_000;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The weakness that is tried, or none.
    pub(crate) mutant: Option<Mutant>,
    /// A log of thousands of votes, for what happens in chunks of a thousand.
    pub(crate) is_long: bool,
    pub(crate) is_traced: bool,
}

/// What became of a history.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The first broken promise, of what has to hold at each instant or of the end.
    pub(crate) violation: Option<String>,
    /// What is wrong in the end.
    pub(crate) wrong_end: Option<String>,
    pub(crate) happened: BTreeMap<&'static str, u64>,
    pub(crate) trace: String,
}

/// Lets a history happen.
pub(crate) fn run(plan: Plan) -> Outcome {
    let mut history = History::new(plan);
    history.rage();
    history.calm()
}

/// Polls a future that needs nobody else until it is ready.
pub(crate) fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// What may happen besides a poll, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Append,
    Kill,
    Pause,
    Wake,
    BackUpTallies,
    RollTalliesBack,
    WipeTallies,
    BackUpBook,
    RestoreBook,
    ChangeRules,
    TrimLog,
    Expire,
    Audit,
}

const EVENTS: [(Event, usize); 13] = [
    (Event::Append, 5),
    (Event::Kill, 6),
    (Event::Pause, 4),
    (Event::Wake, 3),
    (Event::BackUpTallies, 3),
    (Event::RollTalliesBack, 2),
    (Event::WipeTallies, 1),
    (Event::BackUpBook, 3),
    (Event::RestoreBook, 2),
    (Event::ChangeRules, 1),
    (Event::TrimLog, 1),
    (Event::Expire, 5),
    (Event::Audit, 1),
];

/// What kind of history a seed makes. Each has only some of the events, so that one kind does not hide another.
struct Profile {
    partitions: u16,
    first_votes: u64,
    turns: u32,
    /// How often a turn is an event.
    events: f64,
    /// Each event as often as it is likely.
    deck: Vec<Event>,
    /// The most polls of one process in a row.
    burst: u32,
    batch: usize,
    repeats: f64,
    poison: f64,
    gaps: f64,
    faults: Faults,
}

impl Profile {
    fn draw(rng: &mut SmallRng, is_long: bool) -> Self {
        let mut sometimes = |probability: f64, value: f64| if rng.random_bool(probability) { value } else { 0.0 };
        let faults =
            Faults { refused: sometimes(0.5, 0.03), lost: sometimes(0.5, 0.05), partial: sometimes(0.5, 0.15) };
        let (repeats, poison, gaps) = (sometimes(0.8, 0.4), sometimes(0.4, 0.1), sometimes(0.5, 0.3));
        let mut deck = vec![Event::Append];
        for (event, weight) in EVENTS {
            if rng.random_bool(0.7) {
                deck.extend(std::iter::repeat_n(event, weight));
            }
        }
        let profile = Self {
            partitions: rng.random_range(1..=2),
            first_votes: rng.random_range(0..8),
            turns: rng.random_range(20..200),
            events: [0.05, 0.15, 0.3][rng.random_range(0..3)],
            deck,
            burst: [1, 4, 16][rng.random_range(0..3)],
            batch: [1, 2, 3, 5, 8][rng.random_range(0..5)],
            repeats,
            poison,
            gaps,
            faults,
        };
        if is_long {
            return Self { partitions: 1, first_votes: 3_500, burst: 16, batch: 2_000, ..profile };
        }
        profile
    }
}

/// Someone who is polled.
struct Actor {
    seat: usize,
    partition: Option<Partition>,
    role: Role,
    is_asleep: bool,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// One of the two that each partition always has.
    Consumer,
    /// One that was given up for dead; it has so many polls before it learns of it.
    Zombie(u32),
    /// A request of the dead that is still on its way.
    Ghost,
    Auditor,
    Operator,
}

struct History {
    plan: Plan,
    profile: Profile,
    rng: SmallRng,
    world: Shared,
    electorate: Electorate,
    actors: Vec<Actor>,
    tallies_backups: Vec<Arc<TalliesState>>,
    book_backups: Vec<Arc<BookState>>,
}

impl History {
    fn new(plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed);
        let profile = Profile::draw(&mut rng, plan.is_long);
        let mut world = World::new(profile.partitions, SmallRng::seed_from_u64(rng.random()));
        world.faults = profile.faults;
        world.mutant = plan.mutant;
        world.trace = plan.is_traced.then(String::new);
        let world = Shared::new(world);
        let mut history = Self {
            plan,
            electorate: Electorate::new(profile.partitions),
            profile,
            rng,
            world,
            actors: Vec::new(),
            tallies_backups: vec![Arc::default()],
            book_backups: vec![Arc::default()],
        };
        for partition in history.partitions() {
            for _ in 0..history.profile.first_votes {
                history.append(partition);
            }
            history.start_consumer(partition);
            history.start_consumer(partition);
        }
        history
    }

    fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.profile.partitions).map(Partition)
    }

    /// The time of faults.
    fn rage(&mut self) {
        for _ in 0..self.profile.turns {
            let event = self.rng.random_bool(self.profile.events);
            if event || !self.poll_someone() {
                let card = self.rng.random_range(0..self.profile.deck.len());
                self.happen(self.profile.deck[card]);
            }
        }
    }

    /// No more faults: everybody wakes, each partition gets one more vote, and all finish.
    fn calm(mut self) -> Outcome {
        self.world.lock().faults = Faults::default();
        self.world.lock().say(|| "no more faults".to_owned());
        self.profile.poison = 0.0;
        for partition in self.partitions() {
            self.append(partition);
        }
        for actor in &mut self.actors {
            actor.is_asleep = false;
            if let Role::Zombie(left) = &mut actor.role {
                *left = u32::MAX;
            }
        }
        let mut patience = PATIENCE;
        while patience > 0 && self.poll_someone() {
            patience -= 1;
        }
        // Whoever waits learns with the next vote, too, that another partition's consumer cleared the tallies.
        let is_cleared = self.world.lock().happened.contains_key("tallies that were cleared");
        if is_cleared && check::positions(&self.world.lock()).is_some() {
            self.partitions().for_each(|partition| self.append(partition));
            while patience > 0 && self.poll_someone() {
                patience -= 1;
            }
        }
        let unfinished = (patience == 0).then(|| "counting does not come to an end".to_owned());
        let wrong_end = unfinished.or_else(|| check::end(&self.world.lock()));
        self.audit_the_end();
        self.outcome(wrong_end)
    }

    /// The production audit has to say the same as the check of the end, where it can see it: what was not counted yet is
    /// nothing to complain of, and what the log no longer has can't be compared with it.
    fn audit_the_end(&mut self) {
        let wrong = {
            let mut world = self.world.lock();
            let is_trimmed = world.log.iter().any(|log| log.bounds().start > Offset(0));
            let is_behind = check::positions(&world).is_some();
            let has_expired = world.book.checkpoints.values().any(|checkpoint| checkpoint.cut_off > Offset(0));
            // Of what has expired an audit sees only what it came to.
            let is_hidden = has_expired && self.plan.mutant.is_some();
            if is_behind || is_trimmed || is_hidden || (self.plan.mutant.is_none() && self.rng.random_bool(0.8)) {
                return;
            }
            world.happens("audits of the end");
            check::end_as_audited(&world)
        };
        let report = check::audited(&self.world);
        if report.ok == wrong.is_some() {
            let differences = &report.differences;
            self.world.lock().violate(|| format!("the audit says {differences:?}, and the end is {wrong:?}"));
            self.world.lock().happens("audits that were wrong");
        }
    }

    fn outcome(&mut self, wrong_end: Option<String>) -> Outcome {
        self.actors.clear();
        let mut world = self.world.lock();
        if let Some(wrong) = &wrong_end {
            world.violate(|| wrong.clone());
        }
        Outcome {
            violation: world.violation.take(),
            wrong_end,
            happened: std::mem::take(&mut world.happened),
            trace: world.trace.take().unwrap_or_default(),
        }
    }

    /// Polls one process, some times in a row; `false` if all wait.
    fn poll_someone(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.actors.len()).filter(|index| self.is_ready(*index)).collect();
        if ready.is_empty() {
            return false;
        }
        let index = ready[self.rng.random_range(0..ready.len())];
        for _ in 0..self.rng.random_range(1..=self.profile.burst) {
            if !self.poll(index) {
                self.actors.swap_remove(index);
                break;
            }
            if !self.is_ready(index) {
                break;
            }
        }
        true
    }

    fn is_ready(&self, index: usize) -> bool {
        let actor = &self.actors[index];
        let world = self.world.lock();
        let seat = &world.seats[actor.seat];
        let waits = seat.is_waiting && actor.partition.is_some_and(|on| !world.log(on).has_from(seat.cursor));
        !actor.is_asleep && !waits
    }

    /// Polls an actor once; `false` if that was its last poll.
    fn poll(&mut self, index: usize) -> bool {
        let actor = &mut self.actors[index];
        let poll = actor.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let has_more = match &mut actor.role {
            Role::Consumer | Role::Auditor | Role::Operator => true,
            Role::Ghost => false,
            Role::Zombie(left) => {
                *left -= 1;
                *left > 0
            }
        };
        poll.is_pending() && has_more
    }

    fn start_consumer(&mut self, partition: Partition) {
        let seat = Seat::new(&self.world);
        let most = self.rng.random_range(1..=self.profile.batch);
        self.world.lock().say(|| format!("process {} starts on partition {partition}", seat.id));
        let id = seat.id;
        let future = consumer::run(seat, partition, most, self.plan.mutant);
        self.start(id, Some(partition), Role::Consumer, future);
    }

    fn start(
        &mut self,
        seat: usize,
        partition: Option<Partition>,
        role: Role,
        future: impl Future<Output = ()> + 'static,
    ) {
        self.actors.push(Actor { seat, partition, role, is_asleep: false, future: Box::pin(future) });
    }

    /// One of those for whom this is true.
    fn pick(&mut self, is_one: impl Fn(&Actor) -> bool) -> Option<usize> {
        let those: Vec<usize> = (0..self.actors.len()).filter(|index| is_one(&self.actors[*index])).collect();
        (!those.is_empty()).then(|| those[self.rng.random_range(0..those.len())])
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Append => {
                let partition = Partition(self.rng.random_range(0..self.profile.partitions));
                for _ in 0..self.rng.random_range(1..=4) {
                    self.append(partition);
                }
            }
            Event::Kill => self.kill(),
            Event::Pause => self.pause(),
            Event::Wake => self.wake(),
            Event::BackUpTallies => self.tallies_backups.push(Arc::clone(&self.world.lock().tallies)),
            Event::RollTalliesBack => self.roll_tallies_back(),
            Event::WipeTallies => self.wipe_tallies(),
            Event::BackUpBook => self.book_backups.push(Arc::clone(&self.world.lock().book)),
            Event::RestoreBook => self.restore_book(),
            Event::ChangeRules => {
                let mut world = self.world.lock();
                world.has_many_votes ^= true;
                world.happens("changes of rules");
                world.say(|| "the rules change".to_owned());
            }
            Event::TrimLog => self.trim_log(),
            Event::Expire => {
                let partition = Partition(self.rng.random_range(0..self.profile.partitions));
                self.world.lock().is_full.insert(partition);
            }
            Event::Audit => self.audit(),
        }
    }

    fn append(&mut self, partition: Partition) {
        let Profile { gaps, poison, repeats, .. } = self.profile;
        let rng = &mut self.rng;
        let gap = if rng.random_bool(gaps) { rng.random_range(1..=3) } else { 0 };
        let (what, vote) = if rng.random_bool(poison) {
            ("poison records", None)
        } else if rng.random_bool(repeats) {
            let vote = self.electorate.repeat(partition, rng);
            let world = self.world.lock();
            let horizon = world.horizon.get(&partition).copied().unwrap_or_default();
            if world.log(partition).first(&vote.key).is_none_or(|first| first >= horizon) {
                ("repeats of a ballot", Some(vote))
            } else {
                ("new ballots", Some(self.electorate.vote(partition, rng)))
            }
        } else {
            ("new ballots", Some(self.electorate.vote(partition, rng)))
        };
        let mut world = self.world.lock();
        world.happens(what);
        if gap > 0 {
            world.happens("gaps in the log");
        }
        let key = vote.as_ref().map(|vote| (vote.key.clone(), vote.vote_id, vote.name.clone()));
        let offset = world.log[usize::from(partition.0)].append(gap, vote);
        world.say(|| match key {
            Some((key, id, name)) => format!("log {partition} at {offset}: {}, id {id}, for {name}", key.as_str()),
            None => format!("log {partition} at {offset}: poison"),
        });
    }

    fn kill(&mut self) {
        let Some(index) = self.pick(|actor| matches!(actor.role, Role::Consumer | Role::Zombie(_))) else { return };
        let has_ghost = self.rng.random_bool(0.3);
        let (seat, role) = (self.actors[index].seat, self.actors[index].role);
        {
            let mut world = self.world.lock();
            world.happens("kills");
            world.say(|| {
                format!("process {seat} is killed{}", if has_ghost { ", its request is still on its way" } else { "" })
            });
        }
        let partition = self.actors[index].partition;
        if has_ghost {
            self.actors[index].role = Role::Ghost;
            self.actors[index].is_asleep = false;
        } else {
            self.actors.swap_remove(index);
        }
        if let (Role::Consumer, Some(partition)) = (role, partition) {
            self.start_consumer(partition);
        }
    }

    fn pause(&mut self) {
        if self.actors.iter().filter(|actor| actor.is_asleep).count() >= 4 {
            return;
        }
        let Some(index) = self.pick(|actor| actor.role == Role::Consumer) else { return };
        self.actors[index].is_asleep = true;
        let polls = self.rng.random_range(1..30);
        let actor = &mut self.actors[index];
        actor.role = Role::Zombie(polls);
        let (seat, partition) = (actor.seat, actor.partition);
        self.world.lock().say(|| format!("process {seat} falls asleep, and is replaced"));
        self.world.lock().happens("processes that fell asleep");
        if let Some(partition) = partition {
            self.start_consumer(partition);
        }
    }

    fn wake(&mut self) {
        let Some(index) = self.pick(|actor| actor.is_asleep) else { return };
        self.actors[index].is_asleep = false;
        let seat = self.actors[index].seat;
        let mut world = self.world.lock();
        world.happens("zombies that woke");
        world.say(|| format!("process {seat} wakes, a zombie"));
    }

    fn roll_tallies_back(&mut self) {
        let backup = &self.tallies_backups[self.rng.random_range(0..self.tallies_backups.len())];
        let mut world = self.world.lock();
        world.happens("roll-backs of the tallies");
        world.say(|| format!("the tallies are rolled back to {:?}", backup.positions));
        world.tallies = match self.plan.mutant {
            Some(Mutant::PositionsRolledBack) => {
                Arc::new(TalliesState { counts: world.tallies.counts.clone(), ..TalliesState::clone(backup) })
            }
            Some(Mutant::CountsRolledBack) => {
                Arc::new(TalliesState { positions: world.tallies.positions.clone(), ..TalliesState::clone(backup) })
            }
            _ => Arc::clone(backup),
        };
    }

    fn wipe_tallies(&mut self) {
        {
            let mut world = self.world.lock();
            world.happens("wipes of the tallies");
            world.say(|| "the tallies are wiped".to_owned());
            if self.plan.mutant != Some(Mutant::TwoStepWipe) {
                world.tallies = Arc::default();
                return;
            }
        }
        let seat = Seat::new(&self.world).id;
        let (world, positions_first) = (self.world.clone(), self.rng.random());
        let operator = async move {
            let wipe = |is_positions: bool| {
                let mut world = world.lock();
                let tallies = Arc::make_mut(&mut world.tallies);
                if is_positions {
                    tallies.positions.clear();
                } else {
                    tallies.counts.contests.clear();
                }
                world.say(|| format!("wiped: {}", if is_positions { "positions" } else { "counts" }));
            };
            wipe(positions_first);
            step().await;
            wipe(!positions_first);
        };
        self.start(seat, None, Role::Operator, operator);
    }

    /// Replaces the book by a backup of it, with the consumers stopped: nothing of theirs is in flight. The checkpoints may be
    /// older than the documents, as in a backup that was taken while counting went on and read the checkpoints first.
    fn restore_book(&mut self) {
        let documents = &self.book_backups[self.rng.random_range(0..self.book_backups.len())];
        let checkpoints = &self.book_backups[self.rng.random_range(0..self.book_backups.len())];
        let position =
            |book: &BookState, partition| book.checkpoints.get(&partition).map(|checkpoint| checkpoint.offset);
        let cut_off =
            |book: &BookState, partition| book.checkpoints.get(&partition).map(|checkpoint| checkpoint.cut_off);
        let is_older = |partition| {
            position(checkpoints, partition) <= position(documents, partition)
                // A backup of votes that expired meanwhile has to be of one moment.
                && cut_off(checkpoints, partition).unwrap_or_default() == cut_off(documents, partition).unwrap_or_default()
        };
        let (documents, checkpoints) = match self.partitions().all(is_older) {
            true if self.plan.mutant == Some(Mutant::DocumentsOlder) => (checkpoints, documents),
            true => (documents, checkpoints),
            false => (documents, documents),
        };
        let book = BookState { checkpoints: checkpoints.checkpoints.clone(), ..BookState::clone(documents) };
        {
            let mut world = self.world.lock();
            world.happens("restores of the book");
            world.say(|| {
                let count = book.votes.len();
                format!("the book is restored: {:?}, {count} documents", book.checkpoints)
            });
            world.book = Arc::new(book);
            world.is_restored = true;
        }
        if self.plan.mutant == Some(Mutant::RestoredWhileCounting) {
            return;
        }
        // Where no ballot repeats, a consumer that was between two batches may as well have slept through it: the hole is seen.
        let may_sleep = self.profile.repeats == 0.0;
        let world = self.world.lock();
        let is_at_rest = |seat: usize| matches!(world.seats[seat].phase, Phase::New | Phase::Resting);
        self.actors.retain(|actor| may_sleep && actor.partition.is_some() && is_at_rest(actor.seat));
        drop(world);
        if may_sleep && !self.actors.is_empty() {
            self.world.lock().happens("consumers that slept through a restore");
        }
        for partition in self.partitions() {
            let consumers =
                self.actors.iter().filter(|actor| actor.role == Role::Consumer && actor.partition == Some(partition));
            for _ in consumers.count()..2 {
                self.start_consumer(partition);
            }
        }
    }

    /// Retention: what is counted, and in all backups of the book that are still of use, leaves the log.
    fn trim_log(&mut self) {
        let partition = Partition(self.rng.random_range(0..self.profile.partitions));
        let mut world = self.world.lock();
        let booked = world.booked(partition).offset;
        let start = Offset(self.rng.random_range(0..=booked.0));
        if start <= world.log(partition).bounds().start {
            return;
        }
        let has_all = |backup: &Arc<BookState>| {
            backup.checkpoints.get(&partition).is_some_and(|checkpoint| checkpoint.offset >= start)
        };
        self.book_backups.retain(has_all);
        if self.book_backups.is_empty() {
            self.book_backups.push(Arc::clone(&world.book));
        }
        world.happens("trims of the log");
        world.say(|| format!("log {partition} now begins at {start}"));
        world.log[usize::from(partition.0)].trim(start);
    }

    /// The production audit, while the system runs. Until a restored book is whole again there is something to complain of.
    fn audit(&mut self) {
        if self.world.lock().is_restored {
            return;
        }
        let seat = Seat::new(&self.world);
        let (id, world) = (seat.id, self.world.clone());
        let auditor = async move {
            let report = check::report(seat).await;
            let mut world = world.lock();
            if let Ok(report) = report
                && !world.is_restored
            {
                world.happens("audits while counting");
                world.say(|| format!("auditor {id}: {report:?}"));
                if !report.ok {
                    world.violate(|| format!("an audit while counting says {:?}", report.differences));
                }
            }
        };
        self.start(id, None, Role::Auditor, auditor);
    }
}
