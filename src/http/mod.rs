//! The hyper client that both adapters use.
