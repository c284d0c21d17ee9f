//! Weakened variants of counting, each with one rule of it broken. A simulation that does not catch them proves nothing.
//!
//! Production code has no switch for them: most are stores that answer the production [`Counter`](votes::Counter) as the
//! weakened variant would have understood the truth.
//!
//! One is weak on the way only: with [`Mutant::TalliesFirst`] the tallies show votes that the book does not have yet, and
//! in the end all is counted nevertheless, since a T beyond B looks like a restored book and is mended like one.

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
    LastCopy,
    Unfolded,
    IgnoredError,
    SkippedBatch,
    FencedIsAdded,
    CommittedOffset,
    LaggingReplica,
    BuriedLate,
    RestoredWhileCounting,
    DocumentsOlder,
    LoweredCheckpoint,
    NothingHeld,
    UnnotedRepeats,
    ForgottenFirst,
    SummaryOnTop,
}

impl Mutant {
    /// Each, with what it does.
    pub(crate) const ALL: [(Self, &str); 28] = [
        (Self::NoFence, "tallies are added to wherever T is"),
        (Self::NewerThan, "the fence only asks whether the batch ends beyond T"),
        (Self::TwoCalls, "counts and T are written in two calls"),
        (Self::InsertDecides, "a vote counts if its insert succeeded"),
        (Self::IdDecides, "a known ballot counts if it has the same vote id, wherever it is"),
        (Self::FoldedToStored, "reconciling folds up to the largest stored offset instead of B"),
        (Self::MaxCheckpoint, "B is raised to the maximum, also over a hole"),
        (Self::DerivedKey, "consumers derive the ballot key from the rules they were started with"),
        (Self::TwoStepWipe, "counts and positions are wiped in two steps"),
        (Self::PositionsRolledBack, "positions roll back without their counts"),
        (Self::CountsRolledBack, "counts roll back without their positions"),
        (Self::CheckpointFirst, "B is raised before the votes are in the book"),
        (Self::TalliesFirst, "T is raised before B"),
        (Self::LastCopy, "of a batch's copies of a ballot the last is the candidate"),
        (Self::Unfolded, "each copy of a ballot in a batch counts"),
        (Self::IgnoredError, "a failed insert is taken for a success"),
        (Self::SkippedBatch, "after an error the next batch is counted, without reconciling"),
        (Self::FencedIsAdded, "a fenced addition is taken for a success"),
        (Self::CommittedOffset, "the feed begins at the offset committed to the log"),
        (Self::LaggingReplica, "the book's range is read from a replica that lags behind"),
        (Self::BuriedLate, "dead letters are put aside after counting passed them"),
        (Self::RestoredWhileCounting, "the book is restored while consumers count"),
        (Self::DocumentsOlder, "the book is restored with checkpoints that are newer than its documents"),
        (Self::LoweredCheckpoint, "a checkpoint may lower B"),
        (Self::NothingHeld, "votes are deleted though a repeat of them has not expired"),
        (Self::UnnotedRepeats, "repeats are not noted"),
        (Self::ForgottenFirst, "votes are deleted before they are summed up"),
        (Self::SummaryOnTop, "a summary is added to tallies that have part of it"),
    ];
}
