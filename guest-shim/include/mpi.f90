! The mpi module for Partita: what mpif.h declares. Interfaces are implicit, as in mpif.h, because choice buffers take any type.
module mpi
  implicit none
  include 'mpif.h'
end module mpi
