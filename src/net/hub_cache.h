#pragma once
// Where downloaded models lie: in the folders, and in the layout, of the hubs' own Python clients, so that what they
// have fetched counts here and the other way round.
//
// Hugging Face:  CACHE/models--ORG--NAME/blobs/CHECKSUM               the files' contents
//                CACHE/models--ORG--NAME/snapshots/COMMIT/FILE        links to them: the model's folder
//                CACHE/models--ORG--NAME/refs/REVISION                the commit that a branch or tag was at
//                CACHE/models--ORG--NAME/blobs/CHECKSUM.incomplete    what has come so far
//                CACHE/.locks/models--ORG--NAME/CHECKSUM.lock
// ModelScope:    CACHE/ORG/NAME/FILE, with "___" for each "." of the name
//                CACHE/._____temp/ORG/NAME/CHECKSUM.incomplete
//
// Invariants: 1. a file gets its final name only when it is whole and its checksum is right; 2. a revision's ref is
// written when all chosen files of its commit are there; 3. weights come last, so a folder with all weights has the
// rest.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "lanner/status.h"
#include "net/model_id.h"
#include "net/repository_files.h"

namespace lanner::net {

/// What is here of a model without asking anybody.
struct CachedModel {
  std::string path;     // of the folder or GGUF file; empty when something is missing
  std::string missing;  // the first file that is; "" when nothing of the model is here
};

/// Where one file goes.
struct FilePlace {
  std::filesystem::path final;
  std::filesystem::path incomplete;
  std::filesystem::path lock;
};

class HubCache {
 public:
  virtual ~HubCache() = default;
  virtual const std::filesystem::path& root() const = 0;
  virtual CachedModel find(const ModelId& id, const std::string& revision) const = 0;

  virtual FilePlace place(const ModelId& id, const RepositoryFile& file) const = 0;
  /// Whether the content is there already; may read the whole file.
  virtual bool has(const ModelId& id, const RepositoryFile& file) const = 0;
  /// Makes the content, which is there, a file of the commit's folder.
  virtual Status publish(const ModelId& id, const std::string& commit, const RepositoryFile& file) = 0;
  /// Notes that the revision is at this commit, all of whose chosen files are published.
  virtual Status finish(const ModelId& id, const std::string& revision, const std::string& commit) = 0;
  virtual std::filesystem::path folder(const ModelId& id, const std::string& commit) const = 0;
};

std::unique_ptr<HubCache> make_hugging_face_cache(std::filesystem::path root);
/// `locks` is the folder for locks, which ModelScope keeps beside the models or among them.
std::unique_ptr<HubCache> make_modelscope_cache(std::filesystem::path root, std::filesystem::path locks);

/// What a folder holds of a model: its own path when it can be opened, a GGUF file's, or what is missing.
CachedModel find_in_folder(const std::filesystem::path& folder, const ModelId& id);

/// "NAME" for a path in one of the caches, when it is a folder of a model; empty for any other path.
std::string cached_model_name(const std::filesystem::path& path);

}  // namespace lanner::net
