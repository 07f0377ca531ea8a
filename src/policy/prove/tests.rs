//! Proofs with faults planted where no folder of policies can put them.
