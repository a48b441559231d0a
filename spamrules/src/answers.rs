// SPDX-License-Identifier: GPL-3.0-or-later
//! What only a network or a database knows, asked of the caller: DNS lists, SPF, DKIM, Bayes and the like.

/// Answers to questions that a pure library cannot answer. Every method has a default that says "not known".
pub trait Answers {}

/// Knows nothing: what `spamassassin --local` sees.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoAnswers;

impl Answers for NoAnswers {}
