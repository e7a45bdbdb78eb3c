! Proves: the Fortran run-time library starts, formats numbers, allocates and ends.
program hello
  implicit none
  integer, allocatable :: squares(:)
  integer :: i
  allocate (squares(5))
  squares = [(i * i, i=1, 5)]
  print '(a,5(1x,i0))', 'hello from Fortran', squares
  print '(a,f8.5)', 'sqrt(2) =', sqrt(2.0d0)
end program
