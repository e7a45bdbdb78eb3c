//! Operations of reductions.

use core::ffi::{c_int, c_void};

use super::{api, count, put};
use crate::error::{Error, class};
use crate::handle::{Datatype, Op};
use crate::runtime::schedule::UserFunction;
use crate::runtime::state::{UserOp, with};

api! {
    /// Makes an operation of a function.
    Op_create(function: UserFunction, commute: c_int, op: *mut Op) {
        put(op, with(|mpi| mpi.ops.insert(UserOp { function, commutes: commute != 0 })));
        Ok(())
    }

    /// Ends an operation.
    Op_free(op: *mut Op) {
        if with(|mpi| mpi.ops.get(*op).is_none()) {
            return Err(Error::Invalid(class::OP, "not an operation of the program").into());
        }
        with(|mpi| mpi.remove_op(*op));
        put(op, Op::NULL);
        Ok(())
    }

    /// Whether operands may change places.
    Op_commutative(op: Op, commute: *mut c_int) {
        let user = with(|mpi| mpi.ops.get(op).copied());
        let known = user.is_some() || crate::arithmetic::Builtin::from_handle(op.0).is_some();
        if !known {
            return Err(Error::Invalid(class::OP, "not an operation").into());
        }
        put(commute, c_int::from(user.is_none_or(|user| user.commutes)));
        Ok(())
    }

    /// Combines two local arrays.
    Reduce_local(input: *const c_void, inout: *mut c_void, number: c_int, datatype: Datatype, op: Op) {
        let number = count(number)?;
        let operation = with(|mpi| mpi.operation(op, datatype))?;
        operation.apply(input.cast_mut().cast(), inout.cast(), number);
        Ok(())
    }
}
