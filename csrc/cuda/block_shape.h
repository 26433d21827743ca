// How a block's threads lie over work that is counted in rows and columns, columns being neighbours in memory. A thread keeps its
// column over all its rows, so that what belongs to a column is found once per thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "divide.h"

namespace s2mlp {

constexpr int kBlockThreads = 256;  // at most
constexpr int kWarpThreads = 32;
constexpr int kMinBlocks = 3;  // per multiprocessor; left to itself, ptxas spills to fit in more
constexpr int kBlocksPerResident = 2;  // grids are capped at this many times what the device holds at once

struct DeviceLimits {
  int multiprocessors;
  int threads_per_multiprocessor;
};

struct BlockShape {
  int32_t rows;
  int32_t columns;
  int32_t lanes;          // columns of a block
  int32_t rows_of_block;  // that its threads lie over at once
  int32_t next_tile;      // from a tile to the block's next one, in rows
  Divider<int32_t> by_lanes;
  Divider<int32_t> by_column_tiles;
};

struct Grid {
  BlockShape shape;
  int64_t blocks;
  int threads;
};

// A tile is what a block's threads do before they go on to the next one: some rows each.
struct ThreadPlace {
  int32_t tile;
  int32_t row;     // of the block's rows
  int32_t column;  // -1 if the thread has no work
};

S2MLP_HOST_DEVICE ThreadPlace locate_thread(const BlockShape& shape, int32_t block, int32_t thread) {
  const QuotientRemainder<int32_t> in_block = shape.by_lanes(thread);
  const QuotientRemainder<int32_t> tile = shape.by_column_tiles(block);
  const int32_t column = tile.remainder * shape.lanes + in_block.remainder;
  const bool active = in_block.quotient < shape.rows_of_block && column < shape.columns;
  return {tile.quotient, in_block.quotient, active ? column : -1};
}

// The first of the rows of a thread whose `items` rows of a tile lie as far from each other as the block has rows.
S2MLP_HOST_DEVICE int32_t first_row(const BlockShape& shape, const ThreadPlace& thread, int32_t items) {
  return thread.tile * shape.rows_of_block * items + thread.row;
}

// Rows over which a block's threads lie at once: as many as fit, or somewhat fewer if that leaves fewer threads of a warp idle.
inline int32_t rows_of_block(int32_t lanes) {
  const auto idle = [lanes](int32_t rows) {
    return (kWarpThreads - lanes * rows % kWarpThreads) % kWarpThreads / (1.0 * lanes * rows);
  };
  const int32_t most = kBlockThreads / lanes;
  int32_t best = most;
  for (int32_t rows = most; rows > most / 2; --rows) {
    best = idle(rows) < idle(best) ? rows : best;
  }
  return best;
}

// A thread does `items` rows of a tile; a block goes on to its next tile until none are left.
inline Grid make_grid(int64_t rows, int64_t columns, int items, const DeviceLimits& limits) {
  Grid grid;
  BlockShape& shape = grid.shape;
  const int64_t column_tiles = (columns + kBlockThreads - 1) / kBlockThreads;
  shape.rows = static_cast<int32_t>(rows);
  shape.columns = static_cast<int32_t>(columns);
  shape.lanes = static_cast<int32_t>((columns + column_tiles - 1) / column_tiles);
  shape.rows_of_block = static_cast<int32_t>(std::min<int64_t>(rows, rows_of_block(shape.lanes)));
  shape.by_lanes = Divider<int32_t>(shape.lanes);
  shape.by_column_tiles = Divider<int32_t>(column_tiles);
  grid.threads = (shape.lanes * shape.rows_of_block + kWarpThreads - 1) / kWarpThreads * kWarpThreads;
  const int64_t tile = int64_t{shape.rows_of_block} * items;
  const int64_t resident = int64_t{limits.multiprocessors} *
      std::max(1, std::min(kMinBlocks * kBlockThreads, limits.threads_per_multiprocessor) / grid.threads);
  const int64_t most = std::max<int64_t>(1, kBlocksPerResident * resident / column_tiles);
  const int64_t row_tiles = std::min(most, (rows + tile - 1) / tile);
  shape.next_tile = static_cast<int32_t>(row_tiles * tile);
  grid.blocks = row_tiles * column_tiles;
  return grid;
}

}  // namespace s2mlp
