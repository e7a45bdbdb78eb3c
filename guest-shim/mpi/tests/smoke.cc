// C++: the header, exceptions and containers beside the library.
#include <mpi.h>

#include <iostream>
#include <numeric>
#include <stdexcept>
#include <vector>

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    std::vector<long> mine(1000), all(1000 * size);
    std::iota(mine.begin(), mine.end(), rank * 1000L);
    MPI_Allgather(mine.data(), 1000, MPI_LONG, all.data(), 1000, MPI_LONG, MPI_COMM_WORLD);
    try {
        for (size_t i = 0; i < all.size(); i++)
            if (all[i] != static_cast<long>(i)) throw std::runtime_error("wrong");
        throw std::logic_error("caught");
    } catch (const std::logic_error &) {
        if (rank == 0) std::cout << "smoke: ok" << std::endl;
    }
    MPI_Finalize();
}
