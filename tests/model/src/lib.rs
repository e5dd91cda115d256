//! A model of the delivery protocol.
