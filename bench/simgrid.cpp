// The traffic of bench/simgrid.py on SimGrid's flow model: reads a platform and what is sent, prints when it was over.
//
//   "star" or "full" first, then "hosts N", numbered from 0, then "link NAME BYTES_PER_S LATENCY_S"
//   of a star "ends HOST LINK_OUT LINK_IN", else "route FROM TO LINK..."
//   parameter servers: "ps REPLICAS SHARDS STEPS BYTES COMPUTE_S SKEW_S"; replicas come first
//   a sender that waits for each of its messages before the next: "slot START_S FROM TO BYTES TO BYTES ..."
//
// Prints "virtual SECONDS", "cpu SECONDS", and "finish SECONDS" for each slot's messages in the order of the input.

#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>
#include <memory>
#include <simgrid/s4u.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace sg = simgrid::s4u;

struct Slot {
  double start;
  int from;
  std::vector<std::pair<int, double>> messages;
  size_t first;  // index of its first message in `finished`
};

static std::vector<sg::Host*> hosts;
static std::vector<double> finished;

static void replica(int number, int replicas, int shards, int steps, double bytes, double compute, double skew) {
  for (int step = 0; step < steps; step++) {
    sg::this_actor::sleep_for(compute + skew * number);
    for (bool push : {true, false}) {
      std::vector<sg::CommPtr> comms;
      for (int shard = 0; shard < shards; shard++) {
        sg::Host* self = hosts[number];
        sg::Host* other = hosts[replicas + shard];
        comms.push_back(push ? sg::Comm::sendto_async(self, other, bytes) : sg::Comm::sendto_async(other, self, bytes));
      }
      sg::Comm::wait_all(comms);
    }
  }
}

static void slot(const Slot& mine) {
  if (mine.start > 0)
    sg::this_actor::sleep_until(mine.start);
  for (size_t index = 0; index < mine.messages.size(); index++) {
    sg::Comm::sendto(hosts[mine.from], hosts[mine.messages[index].first], mine.messages[index].second);
    finished[mine.first + index] = sg::Engine::get_clock();
  }
}

int main(int argc, char** argv) {
  sg::Engine engine(&argc, argv);
  sg::NetZone* zone = nullptr;
  std::map<std::string, sg::Link*> links;
  std::vector<std::shared_ptr<Slot>> slots;
  std::ifstream input(argv[1]);
  std::string line;
  while (std::getline(input, line)) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "star")
      zone = sg::create_star_zone("zone");
    else if (kind == "full")
      zone = sg::create_full_zone("zone");
    else if (kind == "hosts") {
      int count;
      words >> count;
      for (int number = 0; number < count; number++)
        hosts.push_back(zone->create_host("host-" + std::to_string(number), 1e9));
    } else if (kind == "link") {
      std::string name;
      double bandwidth, latency;
      words >> name >> bandwidth >> latency;
      links[name] = zone->create_link(name, bandwidth)->set_latency(latency)->seal();
    } else if (kind == "ends") {  // of a star: host, link out, link in
      int host;
      std::string out, in;
      words >> host >> out >> in;
      zone->add_route(hosts[host]->get_netpoint(), nullptr, nullptr, nullptr, {sg::LinkInRoute(links[out])}, false);
      zone->add_route(nullptr, hosts[host]->get_netpoint(), nullptr, nullptr, {sg::LinkInRoute(links[in])}, false);
    } else if (kind == "route") {
      int from, to;
      std::string name;
      std::vector<sg::LinkInRoute> path;
      words >> from >> to;
      while (words >> name)
        path.emplace_back(links[name]);
      zone->add_route(hosts[from]->get_netpoint(), hosts[to]->get_netpoint(), nullptr, nullptr, path, false);
    } else if (kind == "ps") {
      int replicas, shards, steps;
      double bytes, compute, skew;
      words >> replicas >> shards >> steps >> bytes >> compute >> skew;
      for (int number = 0; number < replicas; number++)
        sg::Actor::create("replica", hosts[number], replica, number, replicas, shards, steps, bytes, compute, skew);
    } else if (kind == "slot") {
      auto one = std::make_shared<Slot>();
      int to;
      double bytes;
      words >> one->start >> one->from;
      one->first = finished.size();
      while (words >> to >> bytes)
        one->messages.emplace_back(to, bytes);
      finished.resize(finished.size() + one->messages.size());
      slots.push_back(one);
    }
  }
  zone->seal();
  for (const auto& one : slots)
    sg::Actor::create("slot", hosts[one->from], [one] { slot(*one); });
  std::clock_t began = std::clock();
  engine.run();
  double cpu = double(std::clock() - began) / CLOCKS_PER_SEC;
  std::printf("virtual %.9f\ncpu %.6f\n", sg::Engine::get_clock(), cpu);
  for (double one : finished)
    std::printf("finish %.9f\n", one);
}
