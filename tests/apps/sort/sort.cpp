// Sample sort of 64-bit integers: Allgather of samples, Alltoall of counts, Alltoallv of keys.
//
// What it proves in a partition: a C++ program with the standard library and exceptions, and the collective in
// which every rank sends a different amount to every other, gives the result of a native run. --skew makes the
// keys uneven, so that some buckets are large and some empty.
//
// Key number i depends on seed, round and i alone, so the sorted sequence does not depend on the number of ranks.
// The checksum is over (position, key) in integers. Only the last value, `allreduce`, a sum in floating point,
// depends on the order in which MPI_Allreduce adds.
#include <mpi.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int samples_per_rank = 64;

struct Options {
    std::int64_t size = 100000; // keys over all ranks
    int rounds = 4;
    std::uint64_t seed = 1;
    int skew = 0;
    int work = 0; // extra sorts per round of this rank
    bool progress = false;
};

struct WrongUse : std::runtime_error {
    WrongUse() : std::runtime_error("usage: sort [--size N] [--rounds R] [--seed X] [--work W0,W1,...] [--skew K] [--progress]") {}
};

std::uint64_t mix(std::uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

std::int64_t number(const std::string &text, std::int64_t low, std::int64_t high)
{
    std::size_t end = 0;
    std::int64_t value = 0;
    try {
        value = std::stoll(text, &end);
    } catch (const std::logic_error &) {
        throw WrongUse();
    }
    if (end != text.size() || value < low || value > high)
        throw WrongUse();
    return value;
}

// Entry `rank` of a comma-separated list; 0 where the list is shorter.
int work_of(const std::string &list, int rank)
{
    std::size_t begin = 0;
    for (int i = 0; begin <= list.size(); i++) {
        std::size_t comma = std::min(list.find(',', begin), list.size());
        int value = static_cast<int>(number(list.substr(begin, comma - begin), 0, 1000000));
        if (i == rank)
            return value;
        begin = comma + 1;
    }
    return 0;
}

Options parse(int argc, char **argv, int rank)
{
    Options o;
    for (int i = 1; i < argc; i++) {
        std::string name = argv[i];
        if (name == "--progress") {
            o.progress = true;
            continue;
        }
        if (++i >= argc)
            throw WrongUse();
        if (name == "--size")
            o.size = number(argv[i], 0, std::int64_t{1} << 40);
        else if (name == "--rounds" || name == "--steps")
            o.rounds = static_cast<int>(number(argv[i], 1, 1000000000));
        else if (name == "--seed")
            o.seed = static_cast<std::uint64_t>(number(argv[i], 0, 1000000000));
        else if (name == "--skew")
            o.skew = static_cast<int>(number(argv[i], 0, 40));
        else if (name == "--work")
            o.work = work_of(argv[i], rank);
        else
            throw WrongUse();
    }
    return o;
}

using Keys = std::vector<std::int64_t>;

class Sorter {
public:
    Sorter(MPI_Comm comm, const Options &options) : comm_(comm), options_(options)
    {
        MPI_Comm_rank(comm_, &rank_);
        MPI_Comm_size(comm_, &ranks_);
        if (options_.size / ranks_ > INT_MAX / ranks_ / 2)
            throw std::runtime_error("--size is too large for this number of ranks");
    }

    void round(int number)
    {
        Keys keys = generate(number);
        burn(keys);
        std::sort(keys.begin(), keys.end());
        Keys mine = exchange(keys, splitters(keys));
        std::sort(mine.begin(), mine.end());
        verify(mine, number);
    }

    void report() const
    {
        double allreduce = 0;
        MPI_Allreduce(&mean_, &allreduce, 1, MPI_DOUBLE, MPI_SUM, comm_);
        std::vector<std::uint64_t> sums(static_cast<std::size_t>(rank_ ? 0 : ranks_));
        MPI_Gather(&checksum_, sizeof checksum_, MPI_BYTE, sums.data(), sizeof checksum_, MPI_BYTE, 0, comm_);
        if (rank_)
            return;
        std::uint64_t checksum = 0;
        for (std::uint64_t part : sums)
            checksum += part;
        char line[256];
        std::snprintf(line, sizeof line, "sort: size %lld rounds %d seed %llu ranks %d sorted %lld checksum 0x%016llx allreduce %.17g",
                      static_cast<long long>(options_.size), options_.rounds, static_cast<unsigned long long>(options_.seed), ranks_,
                      static_cast<long long>(sorted_), static_cast<unsigned long long>(checksum), allreduce);
        std::cout << line << std::endl;
    }

private:
    Keys generate(int number) const
    {
        std::int64_t from = options_.size / ranks_ * rank_ + std::min<std::int64_t>(rank_, options_.size % ranks_);
        std::int64_t count = options_.size / ranks_ + (rank_ < options_.size % ranks_);
        Keys keys(static_cast<std::size_t>(count));
        std::uint64_t stream = mix(mix(options_.seed) ^ static_cast<std::uint64_t>(number));
        for (std::int64_t i = 0; i < count; i++) {
            std::uint64_t r = mix(stream ^ static_cast<std::uint64_t>(from + i));
            // A skewed key has lost up to `skew` of its high bits, so that small keys crowd together.
            int lost = options_.skew ? static_cast<int>(mix(r) % static_cast<unsigned>(options_.skew + 1)) : 0;
            keys[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(r >> (1 + lost));
        }
        return keys;
    }

    // Extra work that changes nothing: sorts of a copy.
    void burn(const Keys &keys) const
    {
        for (int k = 0; k < options_.work; k++) {
            Keys copy = keys;
            std::sort(copy.begin(), copy.end());
            volatile std::int64_t sink = copy.empty() ? 0 : copy.front();
            (void)sink;
        }
    }

    // ranks - 1 keys that cut the key space into buckets.
    Keys splitters(const Keys &sorted) const
    {
        Keys sample(samples_per_rank, INT64_MAX);
        for (std::size_t i = 0; i < sample.size() && !sorted.empty(); i++)
            sample[i] = sorted[sorted.size() * i / sample.size()];
        Keys all(sample.size() * static_cast<std::size_t>(ranks_));
        MPI_Allgather(sample.data(), samples_per_rank, MPI_LONG_LONG, all.data(), samples_per_rank, MPI_LONG_LONG, comm_);
        std::sort(all.begin(), all.end());
        Keys cuts;
        for (std::size_t r = 1; r < static_cast<std::size_t>(ranks_); r++)
            cuts.push_back(all[r * samples_per_rank]);
        return cuts;
    }

    Keys exchange(const Keys &sorted, const Keys &cuts) const
    {
        auto ranks = static_cast<std::size_t>(ranks_);
        std::vector<int> send_counts(ranks), receive_counts(ranks), send_at(ranks), receive_at(ranks);
        auto begin = sorted.begin();
        for (std::size_t r = 0; r < ranks; r++) {
            auto end = r < cuts.size() ? std::lower_bound(begin, sorted.end(), cuts[r]) : sorted.end();
            send_at[r] = static_cast<int>(begin - sorted.begin());
            send_counts[r] = static_cast<int>(end - begin);
            begin = end;
        }
        MPI_Alltoall(send_counts.data(), 1, MPI_INT, receive_counts.data(), 1, MPI_INT, comm_);
        int total = 0;
        for (std::size_t r = 0; r < ranks; r++) {
            receive_at[r] = total;
            total += receive_counts[r];
        }
        Keys mine(static_cast<std::size_t>(total));
        MPI_Alltoallv(sorted.data(), send_counts.data(), send_at.data(), MPI_LONG_LONG, mine.data(), receive_counts.data(),
                      receive_at.data(), MPI_LONG_LONG, comm_);
        return mine;
    }

    // Every rank learns count, first and last key of all; checks the order across ranks and adds to the checksum.
    void verify(const Keys &mine, int number)
    {
        std::int64_t edge[3] = {static_cast<std::int64_t>(mine.size()), mine.empty() ? 0 : mine.front(), mine.empty() ? 0 : mine.back()};
        std::vector<std::int64_t> edges(3 * static_cast<std::size_t>(ranks_));
        MPI_Allgather(edge, 3, MPI_LONG_LONG, edges.data(), 3, MPI_LONG_LONG, comm_);
        std::int64_t position = 0, total = 0, last = INT64_MIN;
        for (std::size_t r = 0; r < static_cast<std::size_t>(ranks_); r++) {
            if (static_cast<int>(r) == rank_)
                position = total;
            if (edges[3 * r] == 0)
                continue;
            if (edges[3 * r + 1] < last)
                throw std::runtime_error("ranks are out of order");
            last = edges[3 * r + 2];
            total += edges[3 * r];
        }
        if (total != options_.size)
            throw std::runtime_error("keys were lost or repeated");
        if (!std::is_sorted(mine.begin(), mine.end()))
            throw std::runtime_error("keys are out of order");
        for (std::size_t i = 0; i < mine.size(); i++) {
            auto at = static_cast<std::uint64_t>(position) + i;
            checksum_ += mix(mix(at + static_cast<std::uint64_t>(number)) ^ static_cast<std::uint64_t>(mine[i]));
            mean_ += static_cast<double>(mine[i]) / static_cast<double>(options_.size);
        }
        sorted_ += total;
        if (rank_ == 0 && options_.progress && number % std::max(1, options_.rounds / 20) == 0)
            std::cout << "sort: round " << number + 1 << "/" << options_.rounds << std::endl;
    }

    MPI_Comm comm_;
    Options options_;
    int rank_ = 0, ranks_ = 0;
    std::uint64_t checksum_ = 0;
    std::int64_t sorted_ = 0;
    double mean_ = 0;
};

} // namespace

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    try {
        Options options = parse(argc, argv, rank);
        Sorter sorter(MPI_COMM_WORLD, options);
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        for (int number = 0; number < options.rounds; number++)
            sorter.round(number);
        double seconds = MPI_Wtime() - start;
        sorter.report();
        if (rank == 0)
            std::fprintf(stderr, "sort: %.3f s\n", seconds);
    } catch (const std::exception &error) {
        std::cerr << "sort: " << error.what() << std::endl;
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    MPI_Finalize();
    return 0;
}
