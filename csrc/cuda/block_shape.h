// The mapping of a block's threads to rows and columns of work; adjacent columns are adjacent in memory. A thread keeps its
// column for all its rows, so that per-column values are computed once per thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "divide.h"

namespace s2mlp {

constexpr int kBlockThreads = 256;  // at most
constexpr int kWarpThreads = 32;
constexpr int kMinBlocks = 3;  // per multiprocessor; without this bound, ptxas spills registers to fit more
constexpr int kBlocksPerResident = 2;  // grids are capped at this multiple of the number of resident blocks

struct DeviceLimits {
  int multiprocessors;
  int threads_per_multiprocessor;
};

struct BlockShape {
  int32_t rows;
  int32_t columns;
  int32_t lanes;          // columns of a block
  int32_t rows_of_block;  // rows that the threads of a block cover at once
  int32_t next_tile;      // the distance to the block's next tile, in rows
  Divider by_lanes;
  Divider by_column_tiles;
};

struct Grid {
  BlockShape shape;
  int64_t blocks;
  int threads;
};

// A tile is the work of a block per loop iteration: some rows per thread.
struct ThreadPlace {
  int32_t tile;
  int32_t row;     // within the block
  int32_t column;  // -1 if the thread has no work
};

S2MLP_HOST_DEVICE ThreadPlace locate_thread(const BlockShape& shape, int32_t block, int32_t thread) {
  const QuotientRemainder in_block = shape.by_lanes(thread);
  const QuotientRemainder tile = shape.by_column_tiles(block);
  const int32_t column = tile.remainder * shape.lanes + in_block.remainder;
  const bool active = in_block.quotient < shape.rows_of_block && column < shape.columns;
  return {tile.quotient, in_block.quotient, active ? column : -1};
}

// The first row of a thread in its tile. Its `items` rows are rows_of_block apart.
S2MLP_HOST_DEVICE int32_t first_row(const BlockShape& shape, const ThreadPlace& thread, int32_t items) {
  return thread.tile * shape.rows_of_block * items + thread.row;
}

// The rows that a block covers at once: as many as fit, or somewhat fewer if that leaves fewer threads of a warp idle.
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

// A thread processes `items` rows per tile; a block loops over its tiles.
inline Grid make_grid(int64_t rows, int64_t columns, int items, const DeviceLimits& limits) {
  Grid grid;
  BlockShape& shape = grid.shape;
  const int64_t column_tiles = (columns + kBlockThreads - 1) / kBlockThreads;
  shape.rows = static_cast<int32_t>(rows);
  shape.columns = static_cast<int32_t>(columns);
  shape.lanes = static_cast<int32_t>((columns + column_tiles - 1) / column_tiles);
  shape.rows_of_block = static_cast<int32_t>(std::min<int64_t>(rows, rows_of_block(shape.lanes)));
  shape.by_lanes = Divider(shape.lanes);
  shape.by_column_tiles = Divider(column_tiles);
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
