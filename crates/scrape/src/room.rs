//! Room that one large answer took is given back after it.

/// Room for so many things is kept, however few are needed.
const KEPT: usize = 1024;

/// Whether there is far more room than is needed.
pub(crate) fn is_excess(room: usize, needed: usize) -> bool {
    room > KEPT + 4 * needed
}

/// Empties a list that will be filled again, with about as much.
pub(crate) fn empty<T>(list: &mut Vec<T>) {
    let needed = list.len();
    list.clear();
    if is_excess(list.capacity(), needed) {
        list.shrink_to(needed);
    }
}
