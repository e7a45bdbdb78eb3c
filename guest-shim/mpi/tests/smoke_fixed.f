      program smoke
      implicit none
      include 'mpif.h'
      integer ierr, r, n, s, x, got, i
      integer st(MPI_STATUS_SIZE), req(2), half, hr
      double precision d, pair(2), best(2), row(1000)
      logical flag
      call MPI_INIT(ierr)
      call MPI_COMM_RANK(MPI_COMM_WORLD, r, ierr)
      call MPI_COMM_SIZE(MPI_COMM_WORLD, n, ierr)
      x = r
      call MPI_ALLREDUCE(MPI_IN_PLACE, x, 1, MPI_INTEGER, MPI_SUM,
     &  MPI_COMM_WORLD, ierr)
      if (x .ne. n*(n-1)/2) call MPI_ABORT(MPI_COMM_WORLD, 2, ierr)
      call MPI_IRECV(s, 1, MPI_INTEGER, MPI_ANY_SOURCE, 3,
     &  MPI_COMM_WORLD, req(1), ierr)
      call MPI_ISEND(r, 1, MPI_INTEGER, mod(r+1,n), 3, MPI_COMM_WORLD,
     &  req(2), ierr)
      call MPI_WAITALL(2, req, MPI_STATUSES_IGNORE, ierr)
      if (s .ne. mod(r+n-1,n)) call MPI_ABORT(MPI_COMM_WORLD, 3, ierr)
      if (req(1) .ne. MPI_REQUEST_NULL)
     &  call MPI_ABORT(MPI_COMM_WORLD, 4, ierr)
      pair(1) = mod(r*3, n)
      pair(2) = r
      call MPI_ALLREDUCE(pair, best, 1, MPI_2DOUBLE_PRECISION,
     &  MPI_MAXLOC, MPI_COMM_WORLD, ierr)
      do i = 1, 1000
        row(i) = r + i
      end do
      call MPI_SENDRECV_REPLACE(row, 1000, MPI_DOUBLE_PRECISION,
     &  mod(r+1,n), 5, mod(r+n-1,n), 5, MPI_COMM_WORLD, st, ierr)
      call MPI_GET_COUNT(st, MPI_DOUBLE_PRECISION, got, ierr)
      if (got .ne. 1000 .or. st(MPI_SOURCE) .ne. mod(r+n-1,n))
     &  call MPI_ABORT(MPI_COMM_WORLD, 5, ierr)
      if (row(7) .ne. mod(r+n-1,n) + 7)
     &  call MPI_ABORT(MPI_COMM_WORLD, 6, ierr)
      call MPI_COMM_SPLIT(MPI_COMM_WORLD, mod(r,2), -r, half, ierr)
      call MPI_COMM_RANK(half, hr, ierr)
      call MPI_COMM_FREE(half, ierr)
      if (half .ne. MPI_COMM_NULL) call MPI_ABORT(MPI_COMM_WORLD,7,ierr)
      d = MPI_WTIME()
      call MPI_INITIALIZED(flag, ierr)
      if (.not. flag .or. d .lt. 0) call MPI_ABORT(MPI_COMM_WORLD,
     &  8, ierr)
      if (r .eq. 0) print *, 'smoke_fixed: ok'
      call MPI_FINALIZE(ierr)
      end
