//! Virtual topologies.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::c_int;

use super::{api, array, array_mut, collective, comm, count, info, put};
use crate::error::{Error, class};
use crate::handle::{Comm, Info};
use crate::runtime::request::{PROC_NULL, UNDEFINED};
use crate::runtime::state::with;
use crate::topology::{Cart, Neighbours, Topology, balance, edge_range};

/// `MPI_UNWEIGHTED`.
const UNWEIGHTED: usize = 10;
/// `MPI_WEIGHTS_EMPTY`.
const WEIGHTS_EMPTY: usize = 11;

const NO_TOPOLOGY: Error = Error::Invalid(class::TOPOLOGY, "the communicator does not have this topology");
const NOT_A_RANK: Error = Error::Invalid(class::RANK, "not a rank of the communicator");

/// The topology of a communicator.
pub fn of(comm: Comm) -> Result<Rc<Topology>, Error> {
    with(|mpi| mpi.comm(comm).map(|of| of.topology.clone()))?.ok_or(NO_TOPOLOGY)
}

fn cart(comm: Comm) -> Result<Cart, Error> {
    match &*of(comm)? {
        Topology::Cart(cart) => Ok(cart.clone()),
        _ => Err(NO_TOPOLOGY),
    }
}

fn graph(comm: Comm) -> Result<(Vec<c_int>, Vec<c_int>), Error> {
    match &*of(comm)? {
        Topology::Graph { index, edges } => Ok((index.clone(), edges.clone())),
        _ => Err(NO_TOPOLOGY),
    }
}

fn dist(comm: Comm) -> Result<Neighbours, Error> {
    match &*of(comm)? {
        Topology::Dist(of) => Ok(of.clone()),
        _ => Err(NO_TOPOLOGY),
    }
}

fn place(comm: Comm) -> Result<(usize, usize), Error> {
    with(|mpi| {
        let of = mpi.comm(comm)?;
        if of.remote.is_some() {
            return Err(Error::Invalid(class::COMM, "an intercommunicator has no topology"));
        }
        Ok((of.rank, of.group.len()))
    })
}

/// Puts a topology on the first `size` ranks: the new communicator, or none for the others.
fn attach(comm: Comm, size: usize, topology: Topology) -> Result<Comm, Error> {
    let (rank, _) = place(comm)?;
    let new = comm::split(comm, if rank < size { 0 } else { UNDEFINED }, rank as c_int)?;
    put_on(new, topology)
}

fn put_on(new: Comm, topology: Topology) -> Result<Comm, Error> {
    if new != Comm::NULL {
        with(|mpi| mpi.comm_mut(new).map(|of| of.topology = Some(Rc::new(topology))))?;
    }
    Ok(new)
}

fn grid(dims: &[c_int], periods: &[c_int], size: usize) -> Result<Cart, Error> {
    // A grid may have length 0 somewhere: then nobody is in it.
    if dims.iter().any(|&length| length < 0) {
        return Err(Error::Invalid(class::DIMS, "a dimension is negative"));
    }
    let product = dims.iter().try_fold(1usize, |all, &length| all.checked_mul(length as usize));
    if product.is_none_or(|product| product > size) {
        return Err(Error::Invalid(class::DIMS, "the grid is larger than the communicator"));
    }
    Ok(Cart { dims: dims.to_vec(), periods: periods.iter().map(|&ring| ring != 0).collect() })
}

fn checked_graph(index: &[c_int], edges: &[c_int], size: usize) -> Result<Topology, Error> {
    if index.len() > size {
        return Err(Error::Invalid(class::ARG, "the graph has more nodes than the communicator has members"));
    }
    let falls =
        index.windows(2).any(|pair| pair[0] > pair[1]) || index.first().is_some_and(|&first| first < 0);
    let known = |&to: &c_int| usize::try_from(to).is_ok_and(|to| to < index.len());
    if falls || !edges.iter().all(known) {
        return Err(Error::Invalid(class::ARG, "the edges of the graph are not valid"));
    }
    Ok(Topology::Graph { index: index.to_vec(), edges: edges.to_vec() })
}

/// # Safety
/// `pointer` is `MPI_UNWEIGHTED`, `MPI_WEIGHTS_EMPTY` or has `number` elements.
unsafe fn weights<'a>(pointer: *const c_int, number: usize) -> Option<&'a [c_int]> {
    match pointer as usize {
        UNWEIGHTED => None,
        WEIGHTS_EMPTY => Some(&[]),
        // SAFETY: as promised by the caller.
        _ => Some(unsafe { array(pointer, number) }),
    }
}

fn check_ranks(ranks: &[c_int], size: usize) -> Result<(), Error> {
    let known = |&rank: &c_int| usize::try_from(rank).is_ok_and(|rank| rank < size);
    if ranks.iter().all(known) { Ok(()) } else { Err(NOT_A_RANK) }
}

/// Edges that anybody may know of: source, destination, weight.
fn distribute(comm: Comm, edges: &[[c_int; 3]], weighted: bool) -> Result<Neighbours, Error> {
    let (rank, _) = place(comm)?;
    let most =
        collective::collect(comm, [edges.len() as c_int, 0])?.0.iter().map(|of| of[0]).max().unwrap_or(0);
    let mut mine = Neighbours { weighted, ..Neighbours::default() };
    for round in 0..most as usize {
        // Two numbers travel at a time: the ends, then the weight and whether there is an edge at all.
        let edge = edges.get(round);
        let ends = collective::collect(comm, edge.map_or([0, 0], |edge| [edge[0], edge[1]]))?.0;
        let rest = collective::collect(comm, edge.map_or([0, 0], |edge| [edge[2], 1]))?.0;
        for (end, rest) in ends.iter().zip(&rest).filter(|(_, rest)| rest[1] == 1) {
            if end[1] as usize == rank {
                mine.sources.push(end[0]);
                mine.source_weights.push(rest[0]);
            }
            if end[0] as usize == rank {
                mine.destinations.push(end[1]);
                mine.destination_weights.push(rest[0]);
            }
        }
    }
    Ok(mine)
}

fn as_int(rank: Option<usize>) -> c_int {
    rank.map_or(PROC_NULL, |rank| rank as c_int)
}

fn copy(from: &[c_int], to: &mut [c_int]) {
    from.iter().zip(to).for_each(|(from, to)| *to = *from);
}

api! {
    /// Lengths of dimensions that fit a number of ranks.
    Dims_create(nodes: c_int, dimensions: c_int, dims: *mut c_int) {
        const WRONG: Error = Error::Invalid(class::DIMS, "the dimensions do not fit the number of nodes");
        let dims = array_mut(dims, count(dimensions)?);
        let nodes = usize::try_from(nodes).ok().filter(|&nodes| nodes > 0).ok_or(WRONG)?;
        if dims.is_empty() {
            return Ok(());
        }
        if dims.iter().any(|&length| length < 0) {
            return Err(WRONG.into());
        }
        Ok(balance(nodes, dims).ok_or(WRONG)?)
    }

    /// A grid of ranks.
    Cart_create(comm: Comm, dimensions: c_int, dims: *const c_int, periods: *const c_int, reorder: c_int,
        new: *mut Comm) on comm {
        let _ = reorder;
        let n = count(dimensions)?;
        let cart = grid(array(dims, n), array(periods, n), place(comm)?.1)?;
        put(new, attach(comm, cart.size(), Topology::Cart(cart))?);
        Ok(())
    }

    /// The rank that Cart_create would give.
    Cart_map(comm: Comm, dimensions: c_int, dims: *const c_int, periods: *const c_int, rank: *mut c_int) on comm {
        let n = count(dimensions)?;
        let (me, size) = place(comm)?;
        let cart = grid(array(dims, n), array(periods, n), size)?;
        put(rank, if me < cart.size() { me as c_int } else { UNDEFINED });
        Ok(())
    }

    /// Number of dimensions.
    Cartdim_get(comm: Comm, dimensions: *mut c_int) on comm {
        put(dimensions, cart(comm)?.dims.len() as c_int);
        Ok(())
    }

    /// The grid, and my place in it.
    Cart_get(comm: Comm, room: c_int, dims: *mut c_int, periods: *mut c_int, coords: *mut c_int) on comm {
        let (cart, room) = (cart(comm)?, count(room)?.min(cart(comm)?.dims.len()));
        copy(&cart.dims, array_mut(dims, room));
        let periods_found: Vec<c_int> = cart.periods.iter().map(|&ring| c_int::from(ring)).collect();
        copy(&periods_found, array_mut(periods, room));
        copy(&cart.coordinates(place(comm)?.0), array_mut(coords, room));
        Ok(())
    }

    /// The rank at a place.
    Cart_rank(comm: Comm, coords: *const c_int, rank: *mut c_int) on comm {
        let cart = cart(comm)?;
        let found = cart.rank(array(coords, cart.dims.len()));
        put(rank, found.ok_or(Error::Invalid(class::ARG, "a coordinate is outside of the grid"))? as c_int);
        Ok(())
    }

    /// The place of a rank.
    Cart_coords(comm: Comm, rank: c_int, room: c_int, coords: *mut c_int) on comm {
        let cart = cart(comm)?;
        let rank = usize::try_from(rank).ok().filter(|&rank| rank < cart.size()).ok_or(NOT_A_RANK)?;
        copy(&cart.coordinates(rank), array_mut(coords, count(room)?.min(cart.dims.len())));
        Ok(())
    }

    /// The neighbours in a dimension.
    Cart_shift(comm: Comm, dimension: c_int, distance: c_int, source: *mut c_int, dest: *mut c_int) on comm {
        let cart = cart(comm)?;
        let dimension = usize::try_from(dimension).ok().filter(|&dimension| dimension < cart.dims.len());
        let dimension = dimension.ok_or(Error::Invalid(class::ARG, "the grid does not have this dimension"))?;
        let (from, to) = cart.shift(place(comm)?.0, dimension, distance);
        put(source, as_int(from));
        put(dest, as_int(to));
        Ok(())
    }

    /// The grids of some of the dimensions.
    Cart_sub(comm: Comm, remain: *const c_int, new: *mut Comm) on comm {
        let cart = cart(comm)?;
        let remain: Vec<bool> = array(remain, cart.dims.len()).iter().map(|&remains| remains != 0).collect();
        let (part, number, at) = cart.sub(&remain, place(comm)?.0);
        // A grid without dimensions is one rank: as MPICH does, the first one gets it and the others nothing.
        let nobody = part.dims.is_empty() && place(comm)?.0 > 0;
        let made = comm::split(comm, if nobody { UNDEFINED } else { number as c_int }, at as c_int)?;
        put(new, put_on(made, Topology::Cart(part))?);
        Ok(())
    }

    /// A graph of ranks.
    Graph_create(comm: Comm, nodes: c_int, index: *const c_int, edges: *const c_int, reorder: c_int, new: *mut Comm)
    on comm {
        let _ = reorder;
        let index = array(index, count(nodes)?);
        let edges = array(edges, count(index.last().copied().unwrap_or(0))?);
        put(new, attach(comm, index.len(), checked_graph(index, edges, place(comm)?.1)?)?);
        Ok(())
    }

    /// The rank that Graph_create would give.
    Graph_map(comm: Comm, nodes: c_int, index: *const c_int, edges: *const c_int, rank: *mut c_int) on comm {
        let index = array(index, count(nodes)?);
        let edges = array(edges, count(index.last().copied().unwrap_or(0))?);
        let (me, size) = place(comm)?;
        checked_graph(index, edges, size)?;
        put(rank, if me < index.len() { me as c_int } else { UNDEFINED });
        Ok(())
    }

    /// Sizes of a graph.
    Graphdims_get(comm: Comm, nodes: *mut c_int, edges: *mut c_int) on comm {
        let graph = graph(comm)?;
        put(nodes, graph.0.len() as c_int);
        put(edges, graph.1.len() as c_int);
        Ok(())
    }

    /// A graph.
    Graph_get(comm: Comm, room_index: c_int, room_edges: c_int, index: *mut c_int, edges: *mut c_int) on comm {
        let graph = graph(comm)?;
        copy(&graph.0, array_mut(index, count(room_index)?));
        copy(&graph.1, array_mut(edges, count(room_edges)?));
        Ok(())
    }

    /// Number of neighbours of a rank in a graph.
    Graph_neighbors_count(comm: Comm, rank: c_int, number: *mut c_int) on comm {
        let graph = graph(comm)?;
        let rank = usize::try_from(rank).ok().filter(|&rank| rank < graph.0.len()).ok_or(NOT_A_RANK)?;
        put(number, edge_range(&graph.0, rank).len() as c_int);
        Ok(())
    }

    /// The neighbours of a rank in a graph.
    Graph_neighbors(comm: Comm, rank: c_int, room: c_int, neighbours: *mut c_int) on comm {
        let graph = graph(comm)?;
        let rank = usize::try_from(rank).ok().filter(|&rank| rank < graph.0.len()).ok_or(NOT_A_RANK)?;
        copy(&graph.1[edge_range(&graph.0, rank)], array_mut(neighbours, count(room)?));
        Ok(())
    }

    /// A graph of which everybody gives its own edges.
    Dist_graph_create_adjacent(comm: Comm, indegree: c_int, sources: *const c_int, sourceweights: *const c_int,
        outdegree: c_int, destinations: *const c_int, destweights: *const c_int, hints: Info, reorder: c_int,
        new: *mut Comm) on comm {
        let _ = (info::entries(hints)?, reorder);
        let (inside, outside) = (count(indegree)?, count(outdegree)?);
        let (from, to) = (weights(sourceweights, inside), weights(destweights, outside));
        let edges = Neighbours {
            sources: array(sources, inside).to_vec(),
            source_weights: from.unwrap_or_default().to_vec(),
            destinations: array(destinations, outside).to_vec(),
            destination_weights: to.unwrap_or_default().to_vec(),
            weighted: from.is_some() && to.is_some(),
        };
        let size = place(comm)?.1;
        check_ranks(&edges.sources, size)?;
        check_ranks(&edges.destinations, size)?;
        put(new, attach(comm, size, Topology::Dist(edges))?);
        Ok(())
    }

    /// A graph of which everybody gives some edges.
    Dist_graph_create(comm: Comm, number: c_int, sources: *const c_int, degrees: *const c_int,
        destinations: *const c_int, edge_weights: *const c_int, hints: Info, reorder: c_int, new: *mut Comm) on comm {
        let _ = (info::entries(hints)?, reorder);
        let n = count(number)?;
        let (sources, degrees) = (array(sources, n), array(degrees, n));
        let total = degrees.iter().try_fold(0, |all, &degree| count(degree).map(|degree| all + degree))?;
        let (to, given) = (array(destinations, total), weights(edge_weights, total));
        let size = place(comm)?.1;
        check_ranks(sources, size)?;
        check_ranks(to, size)?;
        let from = sources.iter().zip(degrees).flat_map(|(&from, &degree)| (0..degree).map(move |_| from));
        let weight = |i: usize| given.and_then(|given| given.get(i).copied()).unwrap_or(0);
        let edges: Vec<[c_int; 3]> =
            from.zip(to).enumerate().map(|(i, (from, &to))| [from, to, weight(i)]).collect();
        let mine = distribute(comm, &edges, given.is_some())?;
        put(new, attach(comm, size, Topology::Dist(mine))?);
        Ok(())
    }

    /// Number of edges of mine.
    Dist_graph_neighbors_count(comm: Comm, indegree: *mut c_int, outdegree: *mut c_int, weighted: *mut c_int) on comm {
        let edges = dist(comm)?;
        put(indegree, edges.sources.len() as c_int);
        put(outdegree, edges.destinations.len() as c_int);
        put(weighted, c_int::from(edges.weighted));
        Ok(())
    }

    /// My edges.
    Dist_graph_neighbors(comm: Comm, room_in: c_int, sources: *mut c_int, sourceweights: *mut c_int, room_out: c_int,
        destinations: *mut c_int, destweights: *mut c_int) on comm {
        let edges = dist(comm)?;
        let (inside, outside) = (count(room_in)?, count(room_out)?);
        copy(&edges.sources, array_mut(sources, inside));
        copy(&edges.destinations, array_mut(destinations, outside));
        if edges.weighted {
            for (found, place, room) in
                [(&edges.source_weights, sourceweights, inside), (&edges.destination_weights, destweights, outside)]
            {
                if ![UNWEIGHTED, WEIGHTS_EMPTY].contains(&(place as usize)) {
                    copy(found, array_mut(place, room));
                }
            }
        }
        Ok(())
    }

    /// Which topology a communicator has.
    Topo_test(comm: Comm, kind: *mut c_int) on comm {
        const CART: c_int = 211;
        const GRAPH: c_int = 212;
        const DIST_GRAPH: c_int = 213;
        let topology = with(|mpi| mpi.comm(comm).map(|of| of.topology.clone()))?;
        put(kind, match topology.as_deref() {
            None => UNDEFINED,
            Some(Topology::Cart(_)) => CART,
            Some(Topology::Graph { .. }) => GRAPH,
            Some(Topology::Dist(_)) => DIST_GRAPH,
        });
        Ok(())
    }
}
