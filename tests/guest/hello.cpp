// Proves: the C++ library starts (iostream, locale), an exception finds its handler through frames with
// destructors (so the unwinder reads .eh_frame), and chrono's clocks go forward.
#include <chrono>
#include <iostream>
#include <stdexcept>
#include <string>

namespace {

struct Guard {
    int &count;
    ~Guard() { count++; }
};

int dive(int depth, int &unwound)
{
    Guard guard{unwound};
    if (depth == 0)
        throw std::runtime_error("thrown on purpose");
    return dive(depth - 1, unwound) + 1;
}

} // namespace

int main()
{
    std::cout << "hello from C++" << std::endl;
    int unwound = 0;
    auto start = std::chrono::steady_clock::now();
    try {
        dive(10, unwound);
        std::cout << "not thrown" << std::endl;
        return 1;
    } catch (const std::exception &error) {
        std::cout << "caught: " << error.what() << ", frames unwound: " << unwound << std::endl;
    }
    bool forward = std::chrono::steady_clock::now() >= start;
    bool dated = std::chrono::system_clock::now().time_since_epoch() > std::chrono::hours(24 * 365 * 50);
    std::cout << "steady clock forward: " << forward << ", date after 2019: " << dated << std::endl;
    return forward && dated ? 0 : 1;
}
