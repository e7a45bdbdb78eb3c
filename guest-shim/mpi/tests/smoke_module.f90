program smoke
  use mpi
  implicit none
  integer :: ierr, r, n, length
  real, allocatable :: all(:)
  character(len=MPI_MAX_PROCESSOR_NAME) :: name
  call mpi_init(ierr)
  call mpi_comm_rank(MPI_COMM_WORLD, r, ierr)
  call mpi_comm_size(MPI_COMM_WORLD, n, ierr)
  allocate (all(n))
  call mpi_get_processor_name(name, length, ierr)
  call mpi_allgather(real(r), 1, MPI_REAL, all, 1, MPI_REAL, MPI_COMM_WORLD, ierr)
  if (any(all /= [(real(length), length=0, n - 1)])) call mpi_abort(MPI_COMM_WORLD, 1, ierr)
  call mpi_bcast(all, n, MPI_REAL, 0, MPI_COMM_WORLD, ierr)
  if (r == 0) print *, 'smoke_module: ok'
  call mpi_finalize(ierr)
end program smoke
