! Conjugate gradients for the 2-D Laplacian plus a diagonal on an N x N grid, rows of the grid dealt to ranks.
!
! What it proves in a partition: a Fortran program with `use mpi`, command line arguments, allocatable arrays and
! two reductions per iteration gives the bits of a native run.
!
! A scalar product adds each grid row by itself and the N row sums in the order of the rows on every rank. The
! rows travel by an MPI_Allreduce to which only one rank contributes a number other than zero, so the result
! depends neither on the order of the reduction nor on the number of ranks. Only the last value, `allreduce`,
! depends on the order in which MPI_Allreduce adds.
module cg_problem
  use mpi
  use, intrinsic :: iso_fortran_env, only: int64, real64, error_unit, output_unit
  implicit none

  integer, parameter :: size_limit = 32768
  character(len=*), parameter :: usage = &
    'usage: cg [--size N] [--iterations S] [--seed X] [--work W0,W1,...] [--tolerance T] [--progress]'

  type :: options
    integer :: size = 128
    integer :: iterations = 500
    integer(int64) :: seed = 1
    integer :: work = 0
    real(real64) :: tolerance = 1.0e-10_real64
    logical :: progress = .false.
  end type

  integer :: rank, ranks
  integer :: n            ! cells along one side
  integer :: first, last  ! rows of this rank, from 1
  real(real64), parameter :: shift = 0.01_real64
  ! Read by nobody: keeps the compiler from dropping the extra work.
  real(real64), volatile :: sink

contains

  subroutine fail(what)
    character(len=*), intent(in) :: what
    integer :: ierr
    write (error_unit, '(2a)') 'cg: ', what
    call mpi_abort(MPI_COMM_WORLD, 2, ierr)
    stop 2
  end subroutine

  ! SplitMix64 step; the multiplications wrap, which two's complement integers do on every target we have.
  pure function mix(x) result(z)
    integer(int64), intent(in) :: x
    integer(int64) :: z
    z = add(x, int(z'9e3779b97f4a7c15', int64))
    z = multiply(ieor(z, ishft(z, -30)), int(z'bf58476d1ce4e5b9', int64))
    z = multiply(ieor(z, ishft(z, -27)), int(z'94d049bb133111eb', int64))
    z = ieor(z, ishft(z, -31))
  end function

  ! a + b modulo 2^64 in 32-bit halves: signed overflow is not defined in Fortran.
  pure function add(a, b) result(c)
    integer(int64), intent(in) :: a, b
    integer(int64) :: c, low, high
    low = iand(a, int(z'ffffffff', int64)) + iand(b, int(z'ffffffff', int64))
    high = ishft(a, -32) + ishft(b, -32) + ishft(low, -32)
    c = ior(ishft(high, 32), iand(low, int(z'ffffffff', int64)))
  end function

  ! a * b modulo 2^64 in 16-bit digits.
  pure function multiply(a, b) result(c)
    integer(int64), intent(in) :: a, b
    integer(int64) :: c, part
    integer :: i
    c = 0
    do i = 0, 3
      part = digit_times(a, ibits(b, 16 * i, 16))
      c = add(c, ishft(part, 16 * i))
    end do
  end function

  pure function digit_times(a, digit) result(c)
    integer(int64), intent(in) :: a, digit
    integer(int64) :: c, low, high
    low = iand(a, int(z'ffffffff', int64)) * digit
    high = iand(ishft(a, -32) * digit, int(z'ffffffff', int64))
    c = add(low, ishft(high, 32))
  end function

  subroutine parse(o)
    type(options), intent(out) :: o
    character(len=4096) :: name, value
    integer :: i, status
    i = 1
    do while (i <= command_argument_count())
      call get_command_argument(i, name)
      i = i + 1
      if (name == '--progress') then
        o%progress = .true.
        cycle
      end if
      call get_command_argument(i, value)
      i = i + 1
      select case (name)
      case ('--size')
        read (value, *, iostat=status) o%size
      case ('--iterations', '--steps')
        read (value, *, iostat=status) o%iterations
      case ('--seed')
        read (value, *, iostat=status) o%seed
      case ('--tolerance')
        read (value, *, iostat=status) o%tolerance
      case ('--work')
        call work_of(trim(value), o%work, status)
      case default
        status = 1
      end select
      if (status /= 0) call fail(usage)
    end do
    if (o%size < 1 .or. o%size > size_limit .or. o%iterations < 0 .or. o%work < 0) call fail(usage)
  end subroutine

  ! Entry `rank` of a comma-separated list; 0 where the list is shorter.
  subroutine work_of(list, work, status)
    character(len=*), intent(in) :: list
    integer, intent(out) :: work, status
    integer :: begin, comma, i
    work = 0
    status = 0
    begin = 1
    do i = 0, rank
      if (begin > len(list)) return
      comma = index(list(begin:), ',')
      if (comma == 0) comma = len(list) - begin + 2
      if (i == rank) read (list(begin:begin + comma - 2), *, iostat=status) work
      begin = begin + comma
    end do
  end subroutine

  ! Rows first-1 and last+1 of x from the neighbours; zero outside the grid (it is never written).
  subroutine exchange(x)
    real(real64), intent(inout), asynchronous :: x(n, first - 1:last + 1)
    integer :: request(4), statuses(MPI_STATUS_SIZE, 4), count, ierr
    count = 0
    if (first > 1) then
      call mpi_irecv(x(1, first - 1), n, MPI_DOUBLE_PRECISION, rank - 1, 1, MPI_COMM_WORLD, request(1), ierr)
      call mpi_isend(x(1, first), n, MPI_DOUBLE_PRECISION, rank - 1, 2, MPI_COMM_WORLD, request(2), ierr)
      count = 2
    end if
    if (last < n) then
      call mpi_irecv(x(1, last + 1), n, MPI_DOUBLE_PRECISION, rank + 1, 2, MPI_COMM_WORLD, request(count + 1), ierr)
      call mpi_isend(x(1, last), n, MPI_DOUBLE_PRECISION, rank + 1, 1, MPI_COMM_WORLD, request(count + 2), ierr)
      count = count + 2
    end if
    if (count > 0) call mpi_waitall(count, request, statuses, ierr)
  end subroutine

  ! y = A x; the halo of x must be there.
  subroutine apply(x, y)
    real(real64), intent(in) :: x(n, first - 1:last + 1)
    real(real64), intent(inout) :: y(n, first - 1:last + 1)
    integer :: i, j
    real(real64) :: west, east
    do j = first, last
      do i = 1, n
        west = 0
        east = 0
        if (i > 1) west = x(i - 1, j)
        if (i < n) east = x(i + 1, j)
        y(i, j) = (4 + shift) * x(i, j) - ((x(i, j - 1) + x(i, j + 1)) + (west + east))
      end do
    end do
  end subroutine

  ! Scalar product in the order of the grid rows; the part of this rank is left in `mine`.
  function dot(x, y, mine) result(total)
    real(real64), intent(in) :: x(n, first - 1:last + 1), y(n, first - 1:last + 1)
    real(real64), intent(out), optional :: mine
    real(real64) :: total
    real(real64), allocatable :: rows(:), all_rows(:)
    integer :: i, j, ierr
    allocate (rows(n), all_rows(n))
    rows = 0
    do j = first, last
      do i = 1, n
        rows(j) = rows(j) + x(i, j) * y(i, j)
      end do
    end do
    call mpi_allreduce(rows, all_rows, n, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, ierr)
    total = 0
    do j = 1, n
      total = total + all_rows(j)
    end do
    if (present(mine)) then
      mine = 0
      do j = first, last
        mine = mine + rows(j)
      end do
    end if
  end function

  ! Sum of hashes of (cell number, bits) of x modulo 2^64, on rank 0.
  function checksum(x) result(total)
    real(real64), intent(in) :: x(n, first - 1:last + 1)
    integer(int64) :: total, part(1)
    integer :: i, j, from, status(MPI_STATUS_SIZE), ierr
    part = 0
    do j = first, last
      do i = 1, n
        part(1) = add(part(1), mix(ieor(mix((j - 1_int64) * n + i - 1), transfer(x(i, j), total))))
      end do
    end do
    total = part(1)
    if (rank /= 0) then
      call mpi_send(part, 8, MPI_BYTE, 0, 3, MPI_COMM_WORLD, ierr)
      return
    end if
    do from = 1, ranks - 1
      call mpi_recv(part, 8, MPI_BYTE, from, 3, MPI_COMM_WORLD, status, ierr)
      total = add(total, part(1))
    end do
  end function
end module

program cg
  use cg_problem
  implicit none
  type(options) :: o
  real(real64), allocatable :: x(:, :), r(:, :), p(:, :), ap(:, :), scratch(:, :)
  real(real64) :: rr, rr_new, rr_first, alpha, mine(1), allreduce(1), start, seconds
  integer :: k, w, done, ierr
  integer(int64) :: hash

  call mpi_init(ierr)
  call mpi_comm_rank(MPI_COMM_WORLD, rank, ierr)
  call mpi_comm_size(MPI_COMM_WORLD, ranks, ierr)
  call parse(o)
  n = o%size
  if (ranks > n) call fail('--size is too small for this many ranks')
  first = int(int(n, int64) * rank / ranks) + 1
  last = int(int(n, int64) * (rank + 1) / ranks)
  allocate (x(n, first - 1:last + 1), r(n, first - 1:last + 1), p(n, first - 1:last + 1))
  allocate (ap(n, first - 1:last + 1), scratch(n, first - 1:last + 1))
  x = 0
  ap = 0
  scratch = 0
  call fill(r, o%seed)
  p = r

  call mpi_barrier(MPI_COMM_WORLD, ierr)
  start = mpi_wtime()
  rr_first = dot(r, r)
  rr = rr_first
  done = 0
  do k = 1, o%iterations
    if (rr <= o%tolerance**2 * rr_first) exit
    call exchange(p)
    call apply(p, ap)
    do w = 1, o%work
      call apply(p, scratch)
      sink = scratch(1, first)
    end do
    alpha = rr / dot(p, ap)
    x = x + alpha * p
    r = r - alpha * ap
    rr_new = dot(r, r)
    p = r + (rr_new / rr) * p
    rr = rr_new
    done = k
    if (o%progress .and. rank == 0 .and. mod(k, max(1, o%iterations / 20)) == 0) then
      write (output_unit, '(a,i0,a,es13.6)') 'cg: iteration ', k, ' residual ', sqrt(rr)
      flush (output_unit)
    end if
  end do
  seconds = mpi_wtime() - start
  hash = checksum(x)
  rr = dot(r, r, mine(1))
  call mpi_allreduce(mine, allreduce, 1, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, ierr)
  if (rank == 0) then
    write (output_unit, '(3(a,i0),a,i0,a,es24.16e3,a,z16.16,a,es24.16e3)') 'cg: size ', n, ' seed ', o%seed, &
      ' ranks ', ranks, ' iterations ', done, ' residual ', sqrt(rr), ' checksum 0x', hash, ' allreduce ', allreduce(1)
    flush (output_unit)
    write (error_unit, '(a,f0.3,a)') 'cg: ', seconds, ' s'
  end if
  call mpi_finalize(ierr)

contains

  ! The right-hand side: noise in [-1, 1); the halo is zero.
  subroutine fill(b, seed)
    real(real64), intent(out) :: b(n, first - 1:last + 1)
    integer(int64), intent(in) :: seed
    integer :: i, j
    b = 0
    do j = first, last
      do i = 1, n
        b(i, j) = 2 * (real(ishft(mix(ieor(mix(seed), (j - 1_int64) * n + i - 1)), -11), real64) &
                       * 2.0_real64**(-53)) - 1
      end do
    end do
  end subroutine
end program
