//! Mutants: variants of counting, each with one broken rule. A simulation that does not detect the mutants proves
//! nothing.
//!
//! Production code has no switch for the mutants. Most mutants are stores that send the production
//! [`Counter`](votes::Counter) wrong replies, which make it behave like the broken variant.
//!
//! Three mutants are wrong only before the end. At the end every vote is counted:
//!
//! - With [`Mutant::TalliesFirst`], the tallies have votes that the ledger does not have yet. A T above B looks like a
//!   restored ledger and is repaired in the same way.
//! - With [`Mutant::LoweredCheckpoint`], B falls. A consumer that is idle finds this when it checks the stores, and records
//!   the votes again.
//! - With [`Mutant::UnconditionalClear`], the votes that were counted again after a loss are cleared once more.

/// One broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    NoFence,
    NewerThan,
    TwoCalls,
    InsertDecides,
    IdDecides,
    FoldedToStored,
    MaxCheckpoint,
    DerivedKey,
    TwoStepWipe,
    PositionsRolledBack,
    CountsRolledBack,
    CheckpointFirst,
    TalliesFirst,
    LastDuplicate,
    NotDeduplicated,
    IgnoredError,
    SkippedBatch,
    FencedIsAdded,
    CommittedOffset,
    LaggingReplica,
    DeadLetterLate,
    RestoredWhileCounting,
    DocumentsOlder,
    LoweredCheckpoint,
    OriginalsPurged,
    UnrecordedDuplicates,
    PurgedBeforeSummary,
    SummaryOnTop,
    UnconditionalClear,
    UnfencedSummary,
    AgeByTheClock,
    EndNotAsked,
    ExactAge,
}

impl Mutant {
    /// All mutants, each with its broken rule.
    pub(crate) const ALL: [(Self, &str); 33] = [
        (Self::NoFence, "counts are added to the tallies whatever T is"),
        (Self::NewerThan, "the fence only checks that the batch ends beyond T"),
        (Self::TwoCalls, "counts and T are written in two calls"),
        (Self::InsertDecides, "a vote counts if its insert succeeded"),
        (Self::IdDecides, "a known ballot counts if it has the same vote id, at any position"),
        (Self::FoldedToStored, "reconciling folds up to the largest stored offset instead of B"),
        (Self::MaxCheckpoint, "B is raised to the maximum, even over a hole"),
        (Self::DerivedKey, "consumers derive the ballot key from their own rules"),
        (Self::TwoStepWipe, "counts and positions are wiped in two steps"),
        (Self::PositionsRolledBack, "positions roll back without their counts"),
        (Self::CountsRolledBack, "counts roll back without their positions"),
        (Self::CheckpointFirst, "B is raised before the votes are in the ledger"),
        (Self::TalliesFirst, "T is raised before B"),
        (Self::LastDuplicate, "of the votes of a batch with one ballot key, the last one is the candidate"),
        (Self::NotDeduplicated, "all votes of a batch with one ballot key count"),
        (Self::IgnoredError, "a failed insert is treated as a success"),
        (Self::SkippedBatch, "after an error the next batch is counted, without reconciling"),
        (Self::FencedIsAdded, "a fenced addition is treated as a success, also when an idle partition is checked"),
        (Self::CommittedOffset, "the log reader begins at the offset that is committed to the log"),
        (Self::LaggingReplica, "the ledger's votes are read from a replica that lags behind"),
        (Self::DeadLetterLate, "invalid records are sent to the dead letters after their batch was counted"),
        (Self::RestoredWhileCounting, "the ledger is restored while consumers count"),
        (Self::DocumentsOlder, "the ledger is restored with checkpoints that are newer than its documents"),
        (Self::LoweredCheckpoint, "a checkpoint may lower B"),
        (Self::OriginalsPurged, "a vote is deleted although a duplicate of it has not expired"),
        (Self::UnrecordedDuplicates, "duplicates are not recorded"),
        (Self::PurgedBeforeSummary, "votes are deleted before their summary is written"),
        (Self::SummaryOnTop, "a summary is added to tallies that have a part of it already"),
        (Self::UnconditionalClear, "the tallies are cleared although another consumer has cleared them"),
        (Self::UnfencedSummary, "votes are added to a summary from another cut-off than its own"),
        (Self::AgeByTheClock, "the age of votes is measured by the clock while older votes wait to be counted"),
        (Self::EndNotAsked, "an idle partition is taken to be counted to its end"),
        (Self::ExactAge, "the retention by age allows for no error of clocks and no time of delivery"),
    ];

    /// In the histories of these mutants, votes expire by age. In the histories of the other mutants, they expire by size:
    /// then more of them expire while faults occur.
    pub(crate) const OF_AGE: [Self; 4] =
        [Self::AgeByTheClock, Self::EndNotAsked, Self::ExactAge, Self::UnfencedSummary];

    /// The rules for votes that have expired. In the histories of these mutants, votes expire often, and each partition has
    /// two consumers.
    pub(crate) const OF_EXPIRED_VOTES: [Self; 6] = [
        Self::OriginalsPurged,
        Self::UnrecordedDuplicates,
        Self::PurgedBeforeSummary,
        Self::SummaryOnTop,
        Self::UnconditionalClear,
        Self::UnfencedSummary,
    ];

    /// In the histories of these mutants, the ledger is often restored under consumers that are idle.
    pub(crate) const OF_RESTORED_LEDGERS: [Self; 1] = [Self::MaxCheckpoint];

    /// The mutants that are wrong only before the end.
    pub(crate) const RIGHT_AT_END: [Self; 3] = [Self::TalliesFirst, Self::LoweredCheckpoint, Self::UnconditionalClear];
}
