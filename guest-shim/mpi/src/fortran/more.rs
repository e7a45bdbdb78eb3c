//! Functions whose arguments need no care beyond that of the macro, continued.

use super::*;

fortran! {
    mpi_is_thread_main_ = environment::Is_thread_main(flag: out);
    mpi_add_error_class_ = error_code::Add_error_class(class: out);
    mpi_add_error_code_ = error_code::Add_error_code(class: int, code: out);
    mpi_remove_error_class_ = error_code::Remove_error_class(class: int);
    mpi_remove_error_code_ = error_code::Remove_error_code(code: int);
    mpi_remove_error_string_ = error_code::Remove_error_string(code: int);

    mpi_ssend_init_ = pt2pt::Ssend_init(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_rsend_init_ = pt2pt::Rsend_init(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_bsend_init_ = pt2pt::Bsend_init(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_isendrecv_ = pt2pt::Isendrecv(sendbuf: buf, sendcount: int, sendtype: han, dest: int, sendtag: int,
        recvbuf: buf, recvcount: int, recvtype: han, source: int, recvtag: int, comm: han, request: new);
    mpi_isendrecv_replace_ = pt2pt::Isendrecv_replace(buf: buf, n: int, ty: han, dest: int, sendtag: int,
        source: int, recvtag: int, comm: han, request: new);
    mpi_status_set_elements_ = pt2pt::Status_set_elements(st: sta, ty: han, n: int);
    mpi_status_set_cancelled_ = pt2pt::Status_set_cancelled(st: sta, flag: int);
    mpi_request_get_status_ = request::Request_get_status(request: han, flag: out, st: sta);
    mpi_mprobe_ = message::Mprobe(source: int, tag: int, comm: han, message: new, st: sta);
    mpi_improbe_ = message::Improbe(source: int, tag: int, comm: han, flag: out, message: new, st: sta);
    mpi_mrecv_ = message::Mrecv(buf: buf, n: int, ty: han, message: new, st: sta);
    mpi_imrecv_ = message::Imrecv(buf: buf, n: int, ty: han, message: new, request: new);
    mpi_grequest_complete_ = generalized::Grequest_complete(request: han);

    mpi_reduce_local_ = operation::Reduce_local(input: buf, inout: buf, n: int, ty: han, op: han);
    mpi_op_commutative_ = operation::Op_commutative(op: han, commute: out);
    mpi_igather_ = collective::Igather(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf, recvcount: int,
        recvtype: han, root: int, comm: han, request: new);
    mpi_igatherv_ = collective::Igatherv(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf, recvcounts: out,
        displs: out, recvtype: han, root: int, comm: han, request: new);
    mpi_iscatter_ = collective::Iscatter(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf, recvcount: int,
        recvtype: han, root: int, comm: han, request: new);
    mpi_iscatterv_ = collective::Iscatterv(sendbuf: buf, sendcounts: out, displs: out, sendtype: han, recvbuf: buf,
        recvcount: int, recvtype: han, root: int, comm: han, request: new);
    mpi_iallgatherv_ = collective::Iallgatherv(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf,
        recvcounts: out, displs: out, recvtype: han, comm: han, request: new);
    mpi_ialltoallv_ = collective::Ialltoallv(sendbuf: buf, sendcounts: out, sdispls: out, sendtype: han, recvbuf: buf,
        recvcounts: out, rdispls: out, recvtype: han, comm: han, request: new);
    mpi_ireduce_scatter_ = collective::Ireduce_scatter(sendbuf: buf, recvbuf: buf, recvcounts: out, ty: han, op: han,
        comm: han, request: new);
    mpi_ireduce_scatter_block_ = collective::Ireduce_scatter_block(sendbuf: buf, recvbuf: buf, recvcount: int,
        ty: han, op: han, comm: han, request: new);
    mpi_iscan_ = collective::Iscan(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, comm: han, request: new);
    mpi_iexscan_ = collective::Iexscan(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, comm: han, request: new);
    mpi_neighbor_allgather_ = neighbour::Neighbor_allgather(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf,
        recvcount: int, recvtype: han, comm: han);
    mpi_neighbor_allgatherv_ = neighbour::Neighbor_allgatherv(sendbuf: buf, sendcount: int, sendtype: han,
        recvbuf: buf, recvcounts: out, displs: out, recvtype: han, comm: han);
    mpi_neighbor_alltoall_ = neighbour::Neighbor_alltoall(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf,
        recvcount: int, recvtype: han, comm: han);
    mpi_neighbor_alltoallv_ = neighbour::Neighbor_alltoallv(sendbuf: buf, sendcounts: out, sdispls: out,
        sendtype: han, recvbuf: buf, recvcounts: out, rdispls: out, recvtype: han, comm: han);

    mpi_comm_idup_ = comm::Comm_idup(comm: han, newcomm: new, request: new);
    mpi_comm_dup_with_info_ = comm::Comm_dup_with_info(comm: han, info: han, newcomm: new);
    mpi_comm_split_type_ = comm::Comm_split_type(comm: han, kind: int, key: int, info: han, newcomm: new);
    mpi_comm_create_group_ = comm::Comm_create_group(comm: han, group: han, tag: int, newcomm: new);
    mpi_comm_disconnect_ = comm::Comm_disconnect(comm: new);
    mpi_comm_get_parent_ = comm::Comm_get_parent(parent: new);
    mpi_comm_set_info_ = comm::Comm_set_info(comm: han, info: han);
    mpi_comm_get_info_ = comm::Comm_get_info(comm: han, info: new);
    mpi_comm_remote_size_ = intercomm::Comm_remote_size(comm: han, size: out);
    mpi_comm_remote_group_ = intercomm::Comm_remote_group(comm: han, group: new);
    mpi_intercomm_create_ = intercomm::Intercomm_create(local: han, leader: int, peer: han, remote: int, tag: int,
        newcomm: new);
    mpi_intercomm_merge_ = intercomm::Intercomm_merge(comm: han, high: int, newcomm: new);
    mpi_group_compare_ = group::Group_compare(first: han, second: han, result: out);
    mpi_group_union_ = group::Group_union(first: han, second: han, newgroup: new);
    mpi_group_intersection_ = group::Group_intersection(first: han, second: han, newgroup: new);
    mpi_group_difference_ = group::Group_difference(first: han, second: han, newgroup: new);

    mpi_topo_test_ = topology::Topo_test(comm: han, kind: out);
    mpi_dims_create_ = topology::Dims_create(nodes: int, n: int, dims: out);
    mpi_cart_create_ = topology::Cart_create(comm: han, n: int, dims: out, periods: out, reorder: int, newcomm: new);
    mpi_cart_map_ = topology::Cart_map(comm: han, n: int, dims: out, periods: out, rank: out);
    mpi_cartdim_get_ = topology::Cartdim_get(comm: han, n: out);
    mpi_cart_get_ = topology::Cart_get(comm: han, n: int, dims: out, periods: out, coords: out);
    mpi_cart_rank_ = topology::Cart_rank(comm: han, coords: out, rank: out);
    mpi_cart_coords_ = topology::Cart_coords(comm: han, rank: int, n: int, coords: out);
    mpi_cart_shift_ = topology::Cart_shift(comm: han, dimension: int, distance: int, source: out, dest: out);
    mpi_cart_sub_ = topology::Cart_sub(comm: han, remain: out, newcomm: new);
    mpi_graph_create_ = topology::Graph_create(comm: han, n: int, index: out, edges: out, reorder: int, newcomm: new);
    mpi_graph_map_ = topology::Graph_map(comm: han, n: int, index: out, edges: out, rank: out);
    mpi_graphdims_get_ = topology::Graphdims_get(comm: han, nodes: out, edges: out);
    mpi_graph_get_ = topology::Graph_get(comm: han, nodes: int, edges: int, index: out, edge: out);
    mpi_graph_neighbors_count_ = topology::Graph_neighbors_count(comm: han, rank: int, n: out);
    mpi_graph_neighbors_ = topology::Graph_neighbors(comm: han, rank: int, n: int, neighbours: out);
    mpi_dist_graph_create_adjacent_ = topology::Dist_graph_create_adjacent(comm: han, indegree: int, sources: out,
        sourceweights: wei, outdegree: int, destinations: out, destweights: wei, info: han, reorder: int, newcomm: new);
    mpi_dist_graph_create_ = topology::Dist_graph_create(comm: han, n: int, sources: out, degrees: out,
        destinations: out, weights: wei, info: han, reorder: int, newcomm: new);
    mpi_dist_graph_neighbors_count_ = topology::Dist_graph_neighbors_count(comm: han, indegree: out, outdegree: out,
        weighted: out);
    mpi_dist_graph_neighbors_ = topology::Dist_graph_neighbors(comm: han, indegree: int, sources: out,
        sourceweights: wei, outdegree: int, destinations: out, destweights: wei);

    mpi_info_create_ = info::Info_create(info: new);
    mpi_info_dup_ = info::Info_dup(info: han, new: new);
    mpi_info_free_ = info::Info_free(info: new);
    mpi_info_get_nkeys_ = info::Info_get_nkeys(info: han, n: out);

    mpi_comm_create_errhandler_ = errhandler::Comm_create_errhandler(function: cal, handler: new);
    mpi_errhandler_create_ = errhandler::Errhandler_create(function: cal, handler: new);
    mpi_errhandler_get_ = errhandler::Errhandler_get(comm: han, handler: new);
    mpi_errhandler_free_ = errhandler::Errhandler_free(handler: new);
    mpi_comm_call_errhandler_ = errhandler::Comm_call_errhandler(comm: han, code: int);

    mpi_type_dup_ = datatype::Type_dup(old: han, new: new);
    mpi_type_create_indexed_block_ = datatype::Type_create_indexed_block(n: int, block: int, displs: out, old: han,
        new: new);
    mpi_type_create_hindexed_block_ = datatype::Type_create_hindexed_block(n: int, block: int, displs: aout,
        old: han, new: new);
    mpi_type_create_darray_ = datatype::Type_create_darray(size: int, rank: int, n: int, gsizes: out, distribs: out,
        dargs: out, psizes: out, order: int, old: han, new: new);
    mpi_type_get_true_extent_ = datatype::Type_get_true_extent(ty: han, lower: aout, extent: aout);
    mpi_type_get_envelope_ = constructor::Type_get_envelope(ty: han, integers: out, addresses: out, types: out,
        combiner: out);
    mpi_type_match_size_ = constructor::Type_match_size(kind: int, size: int, ty: new);
    mpi_type_create_f90_integer_ = constructor::Type_create_f90_integer(range: int, new: new);
    mpi_type_create_f90_real_ = constructor::Type_create_f90_real(precision: int, range: int, new: new);
    mpi_type_create_f90_complex_ = constructor::Type_create_f90_complex(precision: int, range: int, new: new);
    mpi_pack_ = pack::Pack(input: buf, n: int, ty: han, output: adr, size: int, position: out, comm: han);
    mpi_unpack_ = pack::Unpack(input: adr, size: int, position: out, output: buf, n: int, ty: han, comm: han);
    mpi_pack_size_ = pack::Pack_size(n: int, ty: han, comm: han, size: out);

    mpi_comm_free_keyval_ = attribute::Comm_free_keyval(key: out);
    mpi_keyval_free_ = attribute::Keyval_free(key: out);
    mpi_type_free_keyval_ = attribute::Type_free_keyval(key: out);
    mpi_comm_delete_attr_ = attribute::Comm_delete_attr(comm: han, key: int);
    mpi_attr_delete_ = attribute::Attr_delete(comm: han, key: int);
    mpi_type_delete_attr_ = attribute::Type_delete_attr(ty: han, key: int);
}

/// Handles of an array of INTEGERs.
unsafe fn handles(array: *const c_int, count: usize) -> Vec<Datatype> {
    // SAFETY: the program gives an array of that many INTEGERs.
    (0..count).map(|i| Handle(unsafe { *array.add(i) } as usize)).collect()
}

/// With how many ranks a communicator exchanges data; none if it is not valid, which the function itself reports.
fn peers(comm: *const c_int) -> usize {
    // SAFETY: the program gives an INTEGER.
    api::collective::size_in(Handle(unsafe { *comm } as usize)).unwrap_or(0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_alltoallw_(
    sendbuf: *mut c_void,
    sendcounts: *const c_int,
    sdispls: *const c_int,
    sendtypes: *const c_int,
    recvbuf: *mut c_void,
    recvcounts: *const c_int,
    rdispls: *const c_int,
    recvtypes: *const c_int,
    comm: *const c_int,
    ierror: *mut c_int,
) {
    let in_place = buffer(sendbuf) as usize == IN_PLACE;
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let (send, receive) =
            (handles(sendtypes, if in_place { 0 } else { peers(comm) }), handles(recvtypes, peers(comm)));
        *ierror = api::collective::Alltoallw(
            buffer(sendbuf),
            sendcounts,
            sdispls,
            send.as_ptr(),
            buffer(recvbuf),
            recvcounts,
            rdispls,
            receive.as_ptr(),
            Handle(*comm as usize),
        );
    }
}

/// The types are looked up when the collective starts, so the arrays of handles need not outlive the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_ialltoallw_(
    sendbuf: *mut c_void,
    sendcounts: *const c_int,
    sdispls: *const c_int,
    sendtypes: *const c_int,
    recvbuf: *mut c_void,
    recvcounts: *const c_int,
    rdispls: *const c_int,
    recvtypes: *const c_int,
    comm: *const c_int,
    request: *mut c_int,
    ierror: *mut c_int,
) {
    let in_place = buffer(sendbuf) as usize == IN_PLACE;
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let (send, receive) =
            (handles(sendtypes, if in_place { 0 } else { peers(comm) }), handles(recvtypes, peers(comm)));
        *ierror = api::collective::Ialltoallw(
            buffer(sendbuf),
            sendcounts,
            sdispls,
            send.as_ptr(),
            buffer(recvbuf),
            recvcounts,
            rdispls,
            receive.as_ptr(),
            Handle(*comm as usize),
            Out::new(request).pointer(),
        );
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_type_get_contents_(
    datatype: *const c_int,
    room_integers: *const c_int,
    room_addresses: *const c_int,
    room_types: *const c_int,
    integers: *mut c_int,
    addresses: *mut isize,
    types: *mut c_int,
    ierror: *mut c_int,
) {
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let mut types = OutArray::<3>::new(types, room_types);
        *ierror = api::constructor::Type_get_contents(
            Handle(*datatype as usize),
            *room_integers,
            *room_addresses,
            *room_types,
            integers,
            addresses,
            types.pointer(),
        );
    }
}

macro_rules! of_mpi_1 {
    ($($name:ident = $function:ident;)*) => { $(
        /// Of MPI-1: one number, as a default INTEGER.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(datatype: *const c_int, value: *mut c_int, ierror: *mut c_int) {
            let mut wide = 0isize;
            // SAFETY: the program gives INTEGERs.
            unsafe {
                *ierror = api::datatype::$function(Handle(*datatype as usize), &raw mut wide);
                *value = wide as c_int;
            }
        }
    )* };
}

of_mpi_1! {
    mpi_type_extent_ = Type_extent;
    mpi_type_lb_ = Type_lb;
    mpi_type_ub_ = Type_ub;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_type_hindexed_(
    count: *const c_int,
    lengths: *const c_int,
    displs: *const c_int,
    old: *const c_int,
    new: *mut c_int,
    ierror: *mut c_int,
) {
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let displs: Vec<isize> = (0..(*count).max(0) as usize).map(|i| *displs.add(i) as isize).collect();
        let (old, mut new) = (Handle(*old as usize), Out::new(new));
        *ierror = api::datatype::Type_hindexed(*count, lengths, displs.as_ptr(), old, new.pointer());
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_type_hvector_(
    count: *const c_int,
    block: *const c_int,
    stride: *const c_int,
    old: *const c_int,
    new: *mut c_int,
    ierror: *mut c_int,
) {
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let (old, mut new) = (Handle(*old as usize), Out::new(new));
        *ierror = api::datatype::Type_hvector(*count, *block, *stride as isize, old, new.pointer());
    }
}
